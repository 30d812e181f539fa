"""Database reads in thread pools, so that the event loop never blocks."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

from sqlalchemy import Connection

from storage.database.connections import Database
from storage.errors import StorageUnavailable

T = TypeVar("T")
# The size of the database's connection pool.
_NUM_THREADS = 8
# Searches may read many rows. Their own few threads keep them from delaying other queries.
_NUM_SEARCH_THREADS = 2
# Longer queues only form while the database hangs; what waits there would exceed its time limit anyway.
_MAX_PENDING = 1000


class Reader:
    """Runs queries in thread pools; StorageUnavailable for one that takes too long, which is then interrupted."""

    def __init__(self, database: Database, *, timeout_s: float, max_pending: int = _MAX_PENDING) -> None:
        """max_pending: queries that may be queued or running; further ones fail at once with StorageUnavailable"""
        self._database = database
        self.timeout_s = timeout_s
        self._max_pending = max_pending
        self._num_pending = 0
        self._is_closed = False
        self._threads = ThreadPoolExecutor(_NUM_THREADS, thread_name_prefix="reader")
        self._search_threads = ThreadPoolExecutor(_NUM_SEARCH_THREADS, thread_name_prefix="search")

    async def ask(self, query: Callable[[Connection], T]) -> T:
        """The result of `query` on a connection for reading; it runs in a thread, decoding included."""
        return await self._ask(self._threads, query)

    async def search(self, query: Callable[[Connection], T]) -> T:
        """As `ask`, for a query whose cost a caller decides, such as a filter."""
        return await self._ask(self._search_threads, query)

    async def _ask(self, threads: ThreadPoolExecutor, query: Callable[[Connection], T]) -> T:
        if self._num_pending >= self._max_pending:
            raise StorageUnavailable("the database is too slow: too many queries are queued")
        self._num_pending += 1
        try:
            async with TimeLimit(self.timeout_s, "the database"):
                return await asyncio.get_running_loop().run_in_executor(threads, self._run, query)
        finally:
            self._num_pending -= 1

    def _run(self, query: Callable[[Connection], T]) -> T:
        # A caller that has given up does not end its query, so the database has to.
        with self._database.connect(interrupt_after_s=self.timeout_s) as connection:
            try:
                return query(connection)
            finally:
                if self._is_closed:
                    # The pool is being disposed; a connection that returns to it later would never be closed.
                    connection.invalidate()

    def close(self) -> None:
        """Take no more queries, and wait for none."""
        self._is_closed = True
        for threads in (self._threads, self._search_threads):
            threads.shutdown(wait=False, cancel_futures=True)


class TimeLimit:
    """A timeout for a block, which then raises StorageUnavailable.

    It is a class because `asynccontextmanager` costs as much as the timer, and every read passes here.
    """

    __slots__ = ("_timeout", "_timeout_s", "_who")

    def __init__(self, timeout_s: float, who: str) -> None:
        """who: the service that is awaited, for the message"""
        self._timeout_s = timeout_s
        self._who = who
        self._timeout = asyncio.timeout(timeout_s)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._timeout.__aexit__(kind, error, trace)
        except TimeoutError as late:
            raise StorageUnavailable(f"{self._who} did not answer within {self._timeout_s:g} s") from late
