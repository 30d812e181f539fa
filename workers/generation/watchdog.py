"""Whether an engine that has work still moves: judged from samples of a counter, by the watchdog's own clock."""

import time
from collections.abc import Callable

# One interval between checks counts for at most this share of the limit. When the whole process was stopped, its clock
# is far ahead at the next check although the engine had no time to move.
MIN_CHECKS = 4


class Watchdog:
    """Adds up the time in which nothing moved."""

    def __init__(self, limit_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """limit_s: how long nothing may move; clock: seconds, from anywhere on"""
        self._limit_s = limit_s
        self._clock = clock
        self._checked_at = clock()
        self._pulse: int | None = None
        self._still_s = 0.0

    def is_stuck(self, pulse: int | None) -> bool:
        """Whether nothing has moved for too long, as of this check.

        pulse: a counter that moves with the work; None while there is none to do
        """
        now = self._clock()
        elapsed = min(now - self._checked_at, self._limit_s / MIN_CHECKS)
        self._checked_at = now
        self._still_s = self._still_s + elapsed if pulse is not None and pulse == self._pulse else 0.0
        self._pulse = pulse
        return self._still_s >= self._limit_s
