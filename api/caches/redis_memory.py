"""Redis memory check: a full Redis answers PING but refuses every write."""

import asyncio

import structlog
from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError, RedisError

from api.task_cancellation import end

_KEY = "tokenpost:probe"
_TTL_S = 60

log = structlog.get_logger()


class RedisMemory:
    """Tries a small write at intervals; memory counts as free until the first write."""

    def __init__(self, redis: Redis, *, every_s: float) -> None:
        self.is_full = False
        self._redis = redis
        self._every_s = every_s
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to probe, without waiting for Redis."""
        self._task = asyncio.create_task(self._run(), name="redis-memory")

    async def stop(self) -> None:
        """Stop probing."""
        if self._task is not None:
            await end(self._task)

    async def _run(self) -> None:
        while True:
            await self._try()
            await asyncio.sleep(self._every_s)

    async def _try(self) -> None:
        try:
            await self._redis.set(_KEY, b"", ex=_TTL_S)
        except OutOfMemoryError as error:
            if not self.is_full:
                log.warning("redis_full", error=str(error))
            self.is_full = True
        except (RedisError, OSError):
            pass  # a Redis that is away is noticed by whoever needs it
        except Exception:  # the task's exception boundary: nothing else reports its errors
            log.exception("redis_memory_broken")
        else:
            self.is_full = False
