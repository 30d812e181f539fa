"""Periodic cache refresh, and at once on a cache miss."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from api.caches.database_reads import TimeLimit
from api.task_cancellation import end
from storage.errors import ShuttingDown, StorageUnavailable

# Rate limit: cache misses cause at most one read in this time.
_PAUSE_S = 0.05

log = structlog.get_logger()


class Refresher:
    """Calls `load` periodically; while the database is down the last copy is kept."""

    def __init__(self, name: str, load: Callable[[], Awaitable[None]], *, every_s: float, patience_s: float) -> None:
        """patience_s: longest wait of `renew`"""
        self._name = name
        self._load = load
        self._every_s = every_s
        self._patience_s = patience_s
        self._is_wanted = asyncio.Event()
        self._waiting: list[asyncio.Future[None]] = []
        self._task: asyncio.Task[None] | None = None

    async def start(self, *, may_be_late: bool = False) -> None:
        """Return after the first load; raises what it raises.

        may_be_late: whether StorageUnavailable is only logged, and the first load left to the periodic refresh
        """
        try:
            await self._load()
        except StorageUnavailable as error:
            if not may_be_late:
                raise
            log.warning("refresh_failed", what=self._name, error=error.message)
        self._task = asyncio.create_task(self._run(), name=f"refresh-{self._name}")

    async def stop(self) -> None:
        """Stop refreshing."""
        if self._task is not None:
            await end(self._task)
        self._settle(self._take(), ShuttingDown("this process is going down"))

    async def renew(self) -> None:
        """Return when a refresh that begins from now on is done; StorageUnavailable when it failed or is late."""
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        self._is_wanted.set()
        # Up to two loads may have to pass: the one in progress, and the next.
        async with TimeLimit(self._patience_s, "the database"):
            await waiting

    async def _run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._every_s):
                    await self._is_wanted.wait()
            except TimeoutError:
                pass  # no cache miss: the periodic refresh
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
        except Exception as error:  # exception boundary of the task: it must go on, and those who wait get the error
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
