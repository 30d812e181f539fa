"""The database's clock, as far as a process can know it without asking: the one that all processes share."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection

from api.caches.database_reads import Reader
from api.caches.refresher import Refresher
from storage.jobs import recovery

# Clocks are compared so often; one that is set anew is a rare thing.
_EVERY_S = 5.0
# Beside the time that an answer takes, a difference that is smaller than this is none.
_TOLERANCE_S = 0.25


class DatabaseClock:
    """This machine's time, corrected by what it was off when it was last compared with the database's."""

    def __init__(self, reads: Reader, *, every_s: float = _EVERY_S, local: Callable[[], float] = time.time) -> None:
        """local: Unix time by this machine's clock"""
        self._reads = reads
        self._local = local
        self._ahead = timedelta()
        self._refresher = Refresher("clock", self._compare, every_s=every_s, patience_s=reads.timeout_s)

    async def start(self) -> None:
        """Return when the clocks were compared once."""
        await self._refresher.start()

    async def stop(self) -> None:
        """Compare no more."""
        await self._refresher.stop()

    def now(self) -> datetime:
        """This moment by the database's clock."""
        return datetime.fromtimestamp(self._local(), UTC) + self._ahead

    async def _compare(self) -> None:
        self._ahead = await self._reads.ask(self._ahead_of)

    def _ahead_of(self, connection: Connection) -> timedelta:
        """How far the database's clock is ahead of ours."""
        before = self._local()
        there = recovery.database_now(connection).timestamp()
        after = self._local()
        ahead_s = there - (before + after) / 2
        is_within = abs(ahead_s) <= _TOLERANCE_S + (after - before) / 2
        return timedelta(seconds=0 if is_within else ahead_s)
