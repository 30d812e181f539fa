"""The services of an API process, started and stopped in order."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from sqlalchemy import Connection

from api.authentication.api_keys import ApiKeyCache
from api.caches.catalogue import Catalogue
from api.caches.database_clock import DatabaseClock
from api.caches.database_reads import Reader, TimeLimit
from api.caches.database_writes import BlockingWrites
from api.caches.redis_memory import RedisMemory
from api.capacity.admission_limits import AdmissionLimits
from api.capacity.queue_statistics import QueueStatistics
from api.jobs.abandoned_jobs import AbandonedJobs
from api.jobs.callers import Callers
from api.jobs.compensating_delete import CompensatingDelete
from api.jobs.idempotency_keys_in_flight import IdempotencyKeysInFlight
from api.jobs.recent_refusals import RecentRefusals
from api.settings import ApiSettings
from api.streaming.backfill import Backfill
from api.streaming.log_reader import LogReader
from api.streaming.redis_health import RedisHealth
from api.streaming.relay import Relay
from api.webhooks.url_check import WebhookUrlCheck
from storage import ids
from storage.broker.celery_queue import TicketPublisher
from storage.broker.redis_client import connect, connect_async
from storage.database.connections import Database
from storage.database.group_commit import Writer
from storage.database.migration import is_current
from storage.errors import SettingInvalid

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The services that routes use.

    redis:      for short commands on the event loop
    redis_sync: for the scripts of `storage.broker.event_log`; call it in a thread
    """

    settings: ApiSettings
    writer: Writer
    compensating_delete: CompensatingDelete
    abandoned_jobs: AbandonedJobs
    reads: Reader
    redis: AsyncRedis
    redis_sync: Redis
    redis_memory: RedisMemory
    redis_health: RedisHealth
    logs: LogReader
    relay: Relay
    tickets: TicketPublisher
    api_key_cache: ApiKeyCache
    idempotency_keys_in_flight: IdempotencyKeysInFlight
    refusals: RecentRefusals
    callers: Callers
    catalogue: Catalogue
    statistics: QueueStatistics
    admission_limits: AdmissionLimits
    webhook_url_check: WebhookUrlCheck
    clock: DatabaseClock

    def write(self, operation: Callable[[Connection], T]) -> T:
        """The operation's result after its commit; for threads, never on the event loop."""
        return BlockingWrites(self.writer, timeout_s=self.settings.storage_timeout_s)(operation)

    async def write_promptly(self, operation: Callable[[Connection], T]) -> T:
        """The operation's result after its commit; StorageUnavailable when that takes too long."""
        async with TimeLimit(self.settings.storage_timeout_s, "the database"):
            return await self.writer.call(operation)


@asynccontextmanager
async def running(settings: ApiSettings) -> AsyncIterator[Services]:
    """The services, started; PlatformError where a setting or the database does not let them start."""
    async with AsyncExitStack() as stack:
        database = Database(settings.database_url)
        stack.callback(database.dispose)
        services = _wire(settings, database)
        stack.callback(services.redis_sync.close)
        stack.push_async_callback(services.redis.aclose)
        stack.callback(services.reads.close)
        if not await services.reads.ask(lambda _: is_current(database)):
            raise SettingInvalid("TOKENPOST_DATABASE_URL: its tables are of another version; run: tokenpost db upgrade")
        services.writer.start()
        stack.push_async_callback(asyncio.to_thread, services.writer.stop)
        services.tickets.start()
        stack.push_async_callback(asyncio.to_thread, services.tickets.stop)
        stack.push_async_callback(services.redis_health.stop)
        for part in (
            services.compensating_delete,
            services.abandoned_jobs,
            services.clock,
            services.api_key_cache,
            services.catalogue,
            services.statistics,
            services.relay,
            services.redis_memory,
        ):
            stack.push_async_callback(part.stop)
            await part.start()
        yield services


def _wire(settings: ApiSettings, database: Database) -> Services:
    timeout_s = settings.storage_timeout_s
    reads = Reader(database, timeout_s=timeout_s)
    writer = Writer(database)
    redis = connect_async(settings.redis_url, socket_timeout_s=timeout_s)
    redis_sync = connect(settings.redis_url, socket_timeout_s=timeout_s)
    logs = LogReader(redis)
    # SQLite has one row for each count, and nothing to compact.
    submit = None if database.is_sqlite else writer.submit
    statistics = QueueStatistics(reads, lease_s=settings.lease_s, refresh_s=settings.refresh_s, submit=submit)
    # The pub/sub connection is silent while no job generates.
    listener = connect_async(settings.redis_url, socket_timeout_s=None)
    api_key_cache = ApiKeyCache(settings, reads, writer)
    relay = Relay(listener, Backfill(logs, reads, reader=ids.new_id("api_")), heartbeat_s=settings.heartbeat_s)
    return Services(
        settings=settings,
        writer=writer,
        compensating_delete=CompensatingDelete(writer, every_s=settings.refresh_s),
        abandoned_jobs=AbandonedJobs(BlockingWrites(writer, timeout_s=timeout_s), redis_sync),
        reads=reads,
        redis=redis,
        redis_sync=redis_sync,
        redis_memory=RedisMemory(redis, every_s=settings.refresh_s),
        logs=logs,
        redis_health=RedisHealth(redis, relay, timeout_s=timeout_s),
        relay=relay,
        tickets=TicketPublisher(settings.redis_url),
        idempotency_keys_in_flight=IdempotencyKeysInFlight(),
        refusals=RecentRefusals(),
        callers=Callers(),
        api_key_cache=api_key_cache,
        catalogue=Catalogue(
            reads,
            lease_s=settings.lease_s,
            refresh_s=settings.refresh_s,
            allows_special_tokens=settings.allow_special_tokens,
            expected=settings.expected_models,
        ),
        statistics=statistics,
        admission_limits=AdmissionLimits(
            statistics, max_per_model=settings.max_queued_per_model, max_per_owner=settings.max_queued_per_owner
        ),
        webhook_url_check=WebhookUrlCheck(lambda: settings.webhook_policy(is_open=api_key_cache.is_open)),
        clock=DatabaseClock(reads),
    )
