"""A copy of slow truth that is read anew every second, and at once when somebody misses something in it."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from api.caches.database_reads import Prompt
from api.task_cancellation import end
from storage.errors import ShuttingDown, StorageUnavailable

# Whoever asks for what does not exist makes us read no more often than this.
_PAUSE_S = 0.05

log = structlog.get_logger()


class Refresher:
    """Calls `load` for ever; while the database is away the last copy stays."""

    def __init__(self, name: str, load: Callable[[], Awaitable[None]], *, every_s: float, patience_s: float) -> None:
        """patience_s: longest wait of one who misses something"""
        self._name = name
        self._load = load
        self._every_s = every_s
        self._patience_s = patience_s
        self._is_wanted = asyncio.Event()
        self._waiting: list[asyncio.Future[None]] = []
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Return with the first copy made; raises what making it raises."""
        await self._load()
        self._task = asyncio.create_task(self._run(), name=f"refresh-{self._name}")

    async def stop(self) -> None:
        """Refresh no more."""
        if self._task is not None:
            await end(self._task)
        self._settle(self._take(), ShuttingDown("this process is going down"))

    async def renew(self) -> None:
        """Return when a refresh that began after this call is done; StorageUnavailable when it failed or is late."""
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        self._is_wanted.set()
        # Two reads may lie before it: the one that goes on just now, and its own.
        async with Prompt(self._patience_s, "the database"):
            await waiting

    async def _run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._every_s):
                    await self._is_wanted.wait()
            except TimeoutError:
                pass  # nobody missed anything: the ordinary refresh
            self._is_wanted.clear()
            await self._refresh()
            await asyncio.sleep(_PAUSE_S)

    async def _refresh(self) -> None:
        waiting = self._take()
        try:
            await self._load()
        except StorageUnavailable as error:
            log.warning("refresh_failed", what=self._name, error=error.message)
            self._settle(waiting, error)
        except Exception as error:  # the task's door: it must live, and whoever waits must learn of it
            log.exception("refresh_broken", what=self._name)
            self._settle(waiting, error)
        else:
            self._settle(waiting, None)

    def _take(self) -> list[asyncio.Future[None]]:
        waiting, self._waiting = self._waiting, []
        return waiting

    def _settle(self, waiting: list[asyncio.Future[None]], error: Exception | None) -> None:
        for future in waiting:
            if future.done():
                continue
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)
