"""Whether Redis answers at this moment. What it said lately counts; else it is asked, once for all who want to know."""

import asyncio
import math
import time
from collections.abc import Callable

from redis.asyncio import Redis
from redis.exceptions import RedisError

from api.caches.database_reads import Prompt
from api.streaming.relay import Relay
from api.task_cancellation import end
from storage.errors import StorageUnavailable

# A Redis that hangs is taken to be there for so long. The relay hears it all the time while tokens come.
_FRESH_S = 0.1
# A relay whose Redis is there is connected again after this time.
_RECONNECTION_S = 0.5
_PING_TIMEOUT_S = 1.0


class RedisPulse:
    """Asks for as long as somebody waits."""

    def __init__(
        self, redis: Redis, relay: Relay, *, timeout_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """timeout_s: longest wait for an answer, where that is shorter than ours
        clock:     seconds, from anywhere on
        """
        self._redis = redis
        self._relay = relay
        self._timeout_s = timeout_s
        self._clock = clock
        self._answered_at = -math.inf
        self._asking: asyncio.Task[None] | None = None

    async def stop(self) -> None:
        """Ask no more."""
        if self._asking is not None:
            await end(self._asking)

    async def check(self) -> None:
        """Return when Redis answers and the relay listens; StorageUnavailable when not, soon enough to say so."""
        if not self._relay.is_connected:
            await self._relay.wait_connected(min(_RECONNECTION_S, self._timeout_s))
        elif not self._is_fresh():
            if self._asking is None or self._asking.done():
                self._asking = asyncio.create_task(self._ask(), name="redis-pulse")
            # One who leaves does not end the question of the others.
            await asyncio.shield(self._asking)

    def _is_fresh(self) -> bool:
        return min(self._relay.silent_s, self._clock() - self._answered_at) <= _FRESH_S

    async def _ask(self) -> None:
        try:
            async with Prompt(min(_PING_TIMEOUT_S, self._timeout_s), "Redis"):
                await self._redis.ping()
        except RedisError as error:
            raise StorageUnavailable(f"Redis does not answer: {error}") from error
        self._answered_at = self._clock()
