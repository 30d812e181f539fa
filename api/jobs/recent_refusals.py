"""Calls that were refused a moment ago and made nothing, so that their next try is not taken for that of another call.

An SDK tries again after 429 and 503 as well. Where many calls are alike, such as samples of one prompt, that try would
else join a neighbour's job and bring its answer twice.
"""

from collections import deque

# The openai SDK waits no longer than 120 s, whatever `Retry-After` says.
_KEPT_S = 130.0
_MANY = 10_000
# Of one and the same call; a client that does not say which try it is takes none of them.
_MANY_ALIKE = 1000


class Refusals:
    """Remembers by digest, in this process only, and each for one next try."""

    def __init__(self) -> None:
        self._times_by_digest: dict[bytes, deque[float]] = {}

    def note(self, digest: bytes, now: float) -> None:
        """A call was refused.

        now: of a clock that only goes forward, in seconds
        """
        if len(self._times_by_digest) >= _MANY:
            self._forget(now)
        times = self._times_by_digest.setdefault(digest, deque(maxlen=_MANY_ALIKE))
        _drop_old(times, now)
        times.append(now)

    def take(self, digest: bytes, now: float) -> bool:
        """Whether this try follows a refusal; it does so once for each."""
        times = self._times_by_digest.get(digest)
        if times is None:
            return False
        _drop_old(times, now)
        is_next_try = bool(times)
        if times:
            times.popleft()
        if not times:
            del self._times_by_digest[digest]
        return is_next_try

    def _forget(self, now: float) -> None:
        """Make room: what is old goes, and everything where nothing is."""
        known = self._times_by_digest
        self._times_by_digest = {digest: times for digest, times in known.items() if now - times[-1] <= _KEPT_S}
        if len(self._times_by_digest) >= _MANY:
            self._times_by_digest = {}


def _drop_old(times: deque[float], now: float) -> None:
    while times and now - times[0] > _KEPT_S:
        times.popleft()
