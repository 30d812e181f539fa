"""The database's clock, which all processes share, estimated without a query."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection

from api.caches.database_reads import Reader
from api.caches.refresher import Refresher
from storage.jobs import recovery

# How often the clocks are compared; a clock is rarely set.
_EVERY_S = 5.0
# A smaller difference, beside the round-trip time, is taken for none.
_TOLERANCE_S = 0.25


class DatabaseClock:
    """This machine's time plus the offset to the database's clock at the last comparison."""

    def __init__(self, reads: Reader, *, every_s: float = _EVERY_S, local: Callable[[], float] = time.time) -> None:
        """local: Unix time by this machine's clock"""
        self._reads = reads
        self._local = local
        self._ahead = timedelta()
        self._refresher = Refresher("clock", self._compare, every_s=every_s, patience_s=reads.timeout_s)

    async def start(self) -> None:
        """Return when the clocks have been compared once."""
        await self._refresher.start()

    async def stop(self) -> None:
        """Stop comparing."""
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
