"""Database writes that a thread waits for."""

from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Connection

from storage.database.group_commit import Writer
from storage.errors import StorageUnavailable

T = TypeVar("T")


class BlockingWrites:
    """Runs operations on the writer; for threads, never on the event loop."""

    def __init__(self, writer: Writer, *, timeout_s: float) -> None:
        self._writer = writer
        self._timeout_s = timeout_s

    def __call__(self, operation: Callable[[Connection], T], /) -> T:
        """The operation's result after its commit; StorageUnavailable when that takes too long."""
        try:
            return self._writer.submit(operation).result(self._timeout_s)
        except TimeoutError as error:
            raise StorageUnavailable("the database did not answer in time") from error
