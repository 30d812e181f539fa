"""CPU-bound work in threads: large bodies, prompts and answers, which would block the event loop."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
# Tokenizing releases the interpreter lock; more threads than processors would gain nothing.
_NUM_THREADS = 4


class CpuBoundWork:
    """Runs functions in a few threads."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_NUM_THREADS, thread_name_prefix="cpu-bound")

    async def run(self, work: Callable[[], T]) -> T:
        """The result of `work`; raises what it raises."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def close(self) -> None:
        """Begin nothing more, and wait for nothing."""
        self._threads.shutdown(wait=False, cancel_futures=True)
