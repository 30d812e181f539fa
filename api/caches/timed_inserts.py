"""Inserts of the event loop, with one timer for the time limits of all."""

import asyncio
from collections import deque

from storage.database.group_commit import Insert, Writer
from storage.errors import StorageUnavailable


class TimedInserts:
    """Inserts within a time limit. A timer of each insert's own would cost as much as its statement."""

    def __init__(self, writer: Writer, *, timeout_s: float) -> None:
        self._writer = writer
        self._timeout_s = timeout_s
        # Each insert with the moment from which it is late, the earliest first.
        self._pending: deque[tuple[float, asyncio.Future[None]]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    async def add(self, *rows: Insert) -> None:
        """Return when the rows are committed; StorageUnavailable when that takes too long, and they may still be."""
        loop, pending = asyncio.get_running_loop(), self._pending
        inserted = self._writer.add(*rows)
        while pending and pending[0][1].done():
            pending.popleft()
        pending.append((loop.time() + self._timeout_s, inserted))
        if self._timer is None:
            self._timer = loop.call_at(pending[0][0], self._end_late)
        await inserted

    def _end_late(self) -> None:
        loop, pending = asyncio.get_running_loop(), self._pending
        while pending and (pending[0][1].done() or pending[0][0] <= loop.time()):
            _, inserted = pending.popleft()
            if not inserted.done():
                inserted.set_exception(StorageUnavailable(f"the database did not answer within {self._timeout_s:g} s"))
        self._timer = loop.call_at(pending[0][0], self._end_late) if pending else None
