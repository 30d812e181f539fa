"""A snapshot of rows that many requests look at, read anew on a beat and never inside a request."""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

import structlog
from anyio import to_thread

from storage.errors import StorageUnavailable

T = TypeVar("T")
log = structlog.get_logger()


class Snapshot(Generic[T]):
    """The newest value of `read`, which blocks and so runs on a thread."""

    def __init__(self, read: Callable[[], T], *, every_s: float) -> None:
        self._read = read
        self._every_s = every_s
        self._value: T
        self._task: asyncio.Task[None] | None = None
        self._reading: asyncio.Task[T] | None = None

    @property
    def value(self) -> T:
        """What was read last; valid once `start` returned."""
        return self._value

    async def start(self) -> None:
        """Read for the first time, then on a beat; raises what the first reading raises."""
        await self.renew()
        self._task = asyncio.create_task(self._beat(), name="snapshot")

    async def stop(self) -> None:
        """Read no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def renew(self) -> T:
        """The value as it is now; calls that overlap share one reading."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(to_thread.run_sync(self._read), name="snapshot-reading")
        self._value = await asyncio.shield(self._reading)
        return self._value

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await self.renew()
            except StorageUnavailable as error:
                log.warning("snapshot_is_old", error=error.message)
