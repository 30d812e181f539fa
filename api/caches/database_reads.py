"""Questions to the database, asked in threads so that the event loop never waits."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

from sqlalchemy import Connection

from storage.database.connections import Database
from storage.errors import StorageUnavailable

T = TypeVar("T")
# As many as the database keeps connections open.
_NUM_THREADS = 8


class Reader:
    """Runs queries on a few threads; an answer that takes too long is StorageUnavailable."""

    def __init__(self, database: Database, *, timeout_s: float) -> None:
        self._database = database
        self.timeout_s = timeout_s
        self._is_closed = False
        self._threads = ThreadPoolExecutor(_NUM_THREADS, thread_name_prefix="reader")

    async def ask(self, question: Callable[[Connection], T]) -> T:
        """What `question` returns of a connection for reading; it runs in a thread, decoding included."""
        loop = asyncio.get_running_loop()
        async with Prompt(self.timeout_s, "the database"):
            return await loop.run_in_executor(self._threads, self._answer, question)

    def _answer(self, question: Callable[[Connection], T]) -> T:
        with self._database.connect() as connection:
            try:
                return question(connection)
            finally:
                if self._is_closed:
                    # The pool was emptied, or soon is: what comes back to it later nobody would close.
                    connection.invalidate()

    def close(self) -> None:
        """Take no more questions, and wait for no answer."""
        self._is_closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)


class Prompt:
    """A block that is given up with StorageUnavailable when it takes too long.

    Not made by `asynccontextmanager`, which costs as much as the timer itself: each accepted job passes here.
    """

    __slots__ = ("_timeout", "_timeout_s", "_who")

    def __init__(self, timeout_s: float, who: str) -> None:
        """who: whose answer is awaited"""
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
