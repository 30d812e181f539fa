"""Recently refused requests. Their retries must create a job and not attach to that of an identical request.

An SDK retries after 429 and 503. Where many requests are identical, such as samples of one prompt, such a retry would
otherwise attach to another request's job and return its answer twice.
"""

from collections import deque

# The openai SDK waits no longer than 120 s, whatever `Retry-After` says.
_KEPT_S = 130.0
_MAX_DIGESTS = 10_000
# Refusals of one digest; a client that sends no retry count never takes any.
_MAX_PER_DIGEST = 1000


class RecentRefusals:
    """Refused requests of this process by digest; each counts for one retry."""

    def __init__(self) -> None:
        self._times_by_digest: dict[bytes, deque[float]] = {}

    def note(self, digest: bytes, now: float) -> None:
        """Record a refused request.

        now: seconds of a monotonic clock
        """
        if len(self._times_by_digest) >= _MAX_DIGESTS:
            self._forget(now)
        times = self._times_by_digest.setdefault(digest, deque(maxlen=_MAX_PER_DIGEST))
        _drop_old(times, now)
        times.append(now)

    def take(self, digest: bytes, now: float) -> bool:
        """Whether this retry follows a refusal, which is then used up."""
        times = self._times_by_digest.get(digest)
        if times is None:
            return False
        _drop_old(times, now)
        is_retry = bool(times)
        if times:
            times.popleft()
        if not times:
            del self._times_by_digest[digest]
        return is_retry

    def _forget(self, now: float) -> None:
        """Drop old entries, or all where none is old."""
        known = self._times_by_digest
        self._times_by_digest = {digest: times for digest, times in known.items() if now - times[-1] <= _KEPT_S}
        if len(self._times_by_digest) >= _MAX_DIGESTS:
            self._times_by_digest = {}


def _drop_old(times: deque[float], now: float) -> None:
    while times and now - times[0] > _KEPT_S:
        times.popleft()
