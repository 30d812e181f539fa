"""Database access of requests: reads, writes and the database's clock, within one time limit."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import Connection

from api.caches.database_clock import DatabaseClock
from api.caches.database_reads import Reader, TimeLimit
from api.caches.timed_inserts import TimedInserts
from storage.database.group_commit import Writer
from storage.errors import StorageUnavailable

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseAccess:
    """The database as requests use it; everything takes at most `timeout_s`."""

    reads: Reader
    writer: Writer
    inserts: TimedInserts
    clock: DatabaseClock
    timeout_s: float

    def write(self, operation: Callable[[Connection], T], /) -> T:
        """As `write_promptly`, for threads, never on the event loop."""
        try:
            return self.writer.submit(operation).result(self.timeout_s)
        except TimeoutError as error:
            raise StorageUnavailable("the database did not answer in time") from error

    async def write_promptly(self, operation: Callable[[Connection], T]) -> T:
        """The operation's result after its commit; StorageUnavailable when that takes too long."""
        async with TimeLimit(self.timeout_s, "the database"):
            return await self.writer.call(operation)
