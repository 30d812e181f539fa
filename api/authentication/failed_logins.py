"""Failed logins: counted by client address, throttled and logged."""

import time
from collections.abc import Callable

import msgspec
import structlog

# Failures of one address that cost nothing, and how many are forgiven a second.
_BURST = 20.0
_FORGIVEN_PER_S = 1.0
# Unknown keys of one throttled address that are looked up at the same time; more are refused.
_MAX_DELAYED = 100
# Beyond so many addresses, those that have failed least are forgotten.
_MAX_ADDRESSES = 10_000
_LOG_EVERY_S = 10.0

log = structlog.get_logger()


class _Failures(msgspec.Struct):
    """Failures of one address: a leaky bucket, the total, and what the log has of it."""

    level: float = 0.0
    at: float = 0.0
    total: int = 0
    num_delayed: int = 0
    logged_at: float | None = None


class FailedLogins:
    """A leaky bucket for each client address."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """clock: monotonic seconds"""
        self._clock = clock
        self._by_address: dict[str, _Failures] = {}
        self.total = 0

    def is_throttled(self, address: str) -> bool:
        """Whether the address has failed so often that its unknown keys are looked up with a delay."""
        found = self._by_address.get(address)
        return found is not None and self._level(found) >= _BURST

    def begin_delay(self, address: str) -> bool:
        """Whether one more delayed lookup may begin; call `end_delay` after it."""
        found = self._by_address[address]
        if found.num_delayed >= _MAX_DELAYED:
            return False
        found.num_delayed += 1
        return True

    def end_delay(self, address: str) -> None:
        """Uncount a delayed lookup."""
        found = self._by_address.get(address)
        if found is not None:
            found.num_delayed -= 1

    def note(self, address: str) -> None:
        """Count a failed login; the log gets at most one line in ten seconds for each address."""
        self.total += 1
        found = self._by_address.get(address)
        if found is None:
            self._make_room()
            found = self._by_address[address] = _Failures()
        now = self._clock()
        # A bounded level, so that an address is free again soon after its last failure.
        found.level, found.at = min(self._level(found) + 1, 2 * _BURST), now
        found.total += 1
        if found.logged_at is None or now - found.logged_at >= _LOG_EVERY_S:
            found.logged_at = now
            log.warning("login_failed", address=address, num_failures=found.total)

    def _level(self, failures: _Failures) -> float:
        return max(0.0, failures.level - _FORGIVEN_PER_S * (self._clock() - failures.at))

    def _make_room(self) -> None:
        if len(self._by_address) < _MAX_ADDRESSES:
            return
        by_level = sorted(self._by_address, key=lambda address: self._level(self._by_address[address]))
        for address in by_level[: _MAX_ADDRESSES // 2]:
            if not self._by_address[address].num_delayed:
                del self._by_address[address]
