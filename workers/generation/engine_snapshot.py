"""Engine statistics: taken on the engine's thread, read on any thread."""

import time
from collections.abc import Callable
from typing import Protocol

import msgspec
import structlog

from workers.engine.stats import EngineStats

SNAPSHOT_EVERY_S = 0.5
LOG_EVERY_S = 60.0

log = structlog.get_logger()


class Watched(Protocol):
    """An engine, as far as it is watched."""

    def stats(self) -> EngineStats:
        """What it holds now, and what it has done."""


class EngineWatch:
    """Keeps the engine's newest statistics, and logs them once a minute while the engine works."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """clock: seconds, from anywhere on"""
        self.latest: EngineStats | None = None
        self._clock = clock
        self._snapshot_at = 0.0
        self._log_at = clock() + LOG_EVERY_S

    def observe(self, engine: Watched) -> None:
        """After each step: take a snapshot when one is due; costs nothing before."""
        now = self._clock()
        if now < self._snapshot_at:
            return
        self._snapshot_at = now + SNAPSHOT_EVERY_S
        self.latest = engine.stats()
        if now >= self._log_at:
            self._log_at = now + LOG_EVERY_S
            log.info("engine_stats", **msgspec.to_builtins(self.latest))

    def settle(self, engine: Watched) -> None:
        """Before the engine rests: what it has come to."""
        self.latest = engine.stats()
