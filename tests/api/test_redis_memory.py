"""The look at Redis' memory, as far as it is not seen from outside."""

import asyncio
from typing import Any, cast

from redis.asyncio import Redis

from api.caches.redis_memory import RedisMemory


class _Swallowing:
    """Loses a cancellation on the way, as asyncio.wait_for may until Python 3.12."""

    def __init__(self) -> None:
        self.is_asked = asyncio.Event()

    async def set(self, *_: Any, **__: Any) -> None:  # Any: as redis-py's
        self.is_asked.set()
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            pass


async def test_a_lost_cancellation_does_not_keep_the_server_from_going() -> None:
    redis = _Swallowing()
    memory = RedisMemory(cast(Redis, redis), every_s=3600)
    await memory.start()
    await redis.is_asked.wait()

    async with asyncio.timeout(5):
        await memory.stop()
