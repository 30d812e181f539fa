"""Redis health check: recent traffic counts as an answer, otherwise one shared PING is sent."""

import asyncio
import math
import time
from collections.abc import Callable

from redis.asyncio import Redis
from redis.exceptions import RedisError

from api.caches.database_reads import TimeLimit
from api.streaming.relay import Relay
from api.task_cancellation import end
from storage.errors import StorageUnavailable

# How old an answer may be. While tokens flow, the relay receives messages all the time.
_FRESH_S = 0.1
# A relay reconnects within this time while Redis runs.
_RECONNECTION_S = 0.5
_PING_TIMEOUT_S = 1.0


class RedisHealth:
    """Sends a PING when a check needs one."""

    def __init__(
        self, redis: Redis, relay: Relay, *, timeout_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """timeout_s: longest wait for an answer, where that is shorter than the ping timeout
        clock:     monotonic seconds
        """
        self._redis = redis
        self._relay = relay
        self._timeout_s = timeout_s
        self._clock = clock
        self._answered_at = -math.inf
        self._ping: asyncio.Task[None] | None = None

    async def stop(self) -> None:
        """Send no more PINGs."""
        if self._ping is not None:
            await end(self._ping)

    async def check(self) -> None:
        """Return when Redis answers and the relay listens; StorageUnavailable when not, within the time limit."""
        if not self._relay.is_connected:
            await self._relay.wait_connected(min(_RECONNECTION_S, self._timeout_s))
        elif not self._is_fresh():
            if self._ping is None or self._ping.done():
                self._ping = asyncio.create_task(self._send_ping(), name="redis-health")
            # A cancelled request must not cancel the PING of the others.
            await asyncio.shield(self._ping)

    def _is_fresh(self) -> bool:
        return min(self._relay.silent_s, self._clock() - self._answered_at) <= _FRESH_S

    async def _send_ping(self) -> None:
        try:
            async with TimeLimit(min(_PING_TIMEOUT_S, self._timeout_s), "Redis"):
                await self._redis.ping()
        except RedisError as error:
            raise StorageUnavailable(f"Redis does not answer: {error}") from error
        self._answered_at = self._clock()
