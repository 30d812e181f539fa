"""Questions to the database, asked in threads so that the event loop never waits."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TypeVar

from sqlalchemy import Connection

from storage.database import Database
from storage.errors import StorageUnavailable

T = TypeVar("T")
# As many as the database keeps connections open.
_NUM_THREADS = 8


class Reader:
    """Runs queries on a few threads; an answer that takes too long is StorageUnavailable."""

    def __init__(self, database: Database, *, timeout_s: float) -> None:
        self._database = database
        self._timeout_s = timeout_s
        self._threads = ThreadPoolExecutor(_NUM_THREADS, thread_name_prefix="reader")

    async def ask(self, question: Callable[[Connection], T]) -> T:
        """What `question` returns of a connection for reading; it runs in a thread, decoding included."""
        loop = asyncio.get_running_loop()
        async with prompt(self._timeout_s, "the database"):
            return await loop.run_in_executor(self._threads, self._answer, question)

    def _answer(self, question: Callable[[Connection], T]) -> T:
        with self._database.connect() as connection:
            return question(connection)

    def close(self) -> None:
        """Take no more questions."""
        self._threads.shutdown(wait=False, cancel_futures=True)


@asynccontextmanager
async def prompt(timeout_s: float, who: str) -> AsyncIterator[None]:
    """The block, given up with StorageUnavailable when `who` takes too long."""
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError as error:
        raise StorageUnavailable(f"{who} did not answer within {timeout_s:g} s") from error
