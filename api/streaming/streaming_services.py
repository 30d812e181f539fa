"""Streaming services: everything that needs Redis, to stream event logs, read them and end them."""

from dataclasses import dataclass

from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from api.caches.redis_memory import RedisMemory
from api.streaming.log_reader import LogReader
from api.streaming.redis_health import RedisHealth
from api.streaming.relay import Relay


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamingServices:
    """The relay, the event logs, and the state of Redis.

    redis:      for short commands on the event loop
    redis_sync: for the scripts of `storage.broker.event_log`; call it in a thread
    """

    redis: AsyncRedis
    redis_sync: Redis
    redis_memory: RedisMemory
    redis_health: RedisHealth
    logs: LogReader
    relay: Relay
