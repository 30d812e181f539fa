"""When Redis is asked whether it is there: not while it speaks, and once for many who want to know."""

import asyncio
from typing import cast

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from api.streaming.redis_health import RedisHealth
from api.streaming.relay import Relay
from storage.errors import StorageUnavailable


class FakeRelay:
    """Listens to a Redis that has said nothing for a while."""

    def __init__(self) -> None:
        self.is_connected = True
        self.silent_s = 0.4

    async def wait_connected(self, timeout_s: float) -> None:
        raise StorageUnavailable(f"not within {timeout_s} s")


class FakeRedis:
    """Answers pings when a test lets it."""

    def __init__(self) -> None:
        self.num_pings = 0
        self.error: Exception | None = None
        self.answers = asyncio.Event()

    async def ping(self) -> None:
        self.num_pings += 1
        await self.answers.wait()
        if self.error is not None:
            raise self.error


class World:
    """A pulse and what it feels."""

    def __init__(self) -> None:
        self.now = 100.0
        self.redis, self.relay = FakeRedis(), FakeRelay()
        self.pulse = RedisHealth(
            cast(Redis, self.redis), cast(Relay, self.relay), timeout_s=1.5, clock=lambda: self.now
        )

    async def check_many(self, error: Exception | None = None) -> list[BaseException | None]:
        """What became of twenty who asked together; Redis answers once all of them wait."""
        self.redis.answers.clear()
        self.redis.error = error
        asking = [asyncio.create_task(self.pulse.check()) for _ in range(20)]
        await asyncio.sleep(0)
        self.redis.answers.set()
        return await asyncio.gather(*asking, return_exceptions=True)


@pytest.fixture
async def world() -> World:
    return World()


async def test_many_who_come_together_ask_once(world: World) -> None:
    assert await world.check_many() == [None] * 20
    assert world.redis.num_pings == 1

    world.now += 0.05
    assert await world.check_many() == [None] * 20
    assert world.redis.num_pings == 1

    world.now += 0.1
    assert await world.check_many() == [None] * 20
    assert world.redis.num_pings == 2


async def test_a_redis_that_speaks_is_not_asked(world: World) -> None:
    world.relay.silent_s = 0.02

    await world.pulse.check()

    assert world.redis.num_pings == 0


async def test_all_who_wait_get_the_error_and_the_next_ask_again(world: World) -> None:
    outcomes = await world.check_many(RedisConnectionError("gone"))
    assert [str(one) for one in outcomes] == ["Redis does not answer: gone"] * 20
    assert all(isinstance(one, StorageUnavailable) for one in outcomes)

    assert await world.check_many() == [None] * 20
    assert world.redis.num_pings == 2

    world.relay.is_connected = False
    with pytest.raises(StorageUnavailable, match=r"not within 0\.5 s"):
        await world.pulse.check()


async def test_who_leaves_takes_the_answer_from_nobody(world: World) -> None:
    first, second = asyncio.create_task(world.pulse.check()), asyncio.create_task(world.pulse.check())
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first])

    world.redis.answers.set()
    await second

    assert (first.cancelled(), world.redis.num_pings) == (True, 1)
