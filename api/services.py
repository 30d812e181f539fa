"""The services of an API process: made, grouped by the rooms that use them, started and stopped in order."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from api.authentication.api_keys import ApiKeyCache
from api.batches.inline_requests import InlineInputs
from api.caches.catalogue import Catalogue
from api.caches.database_access import DatabaseAccess
from api.caches.database_clock import DatabaseClock
from api.caches.database_reads import Reader
from api.caches.redis_memory import RedisMemory
from api.caches.timed_inserts import TimedInserts
from api.capacity.admission_limits import AdmissionLimits
from api.capacity.queue_statistics import QueueStatistics
from api.cpu_bound_work import CpuBoundWork
from api.files.downloads import Downloads
from api.files.file_services import FileServices
from api.files.uploads import Uploads
from api.http.request_bodies import RequestBodies
from api.jobs.abandoned_jobs import AbandonedJobs
from api.jobs.callers import Callers
from api.jobs.compensating_delete import CompensatingDelete
from api.jobs.idempotency_keys_in_flight import IdempotencyKeysInFlight
from api.jobs.job_services import JobServices
from api.jobs.recent_refusals import RecentRefusals
from api.protocol.checking.constraint_checks import ConstraintChecks
from api.settings import ApiSettings
from api.streaming.backfill import Backfill
from api.streaming.log_reader import LogReader
from api.streaming.redis_health import RedisHealth
from api.streaming.relay import Relay
from api.streaming.streaming_services import StreamingServices
from api.webhooks.url_check import WebhookUrlCheck
from api.webhooks.webhook_services import WebhookServices
from storage import ids
from storage.broker.celery_queue import TicketPublisher
from storage.broker.redis_client import connect, connect_async
from storage.database.connections import Database
from storage.database.group_commit import Writer
from storage.database.schema_version import is_current
from storage.errors import SettingInvalid
from storage.files.content_store import open_content


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """One group of services for each room; a room finds its group in the application's state."""

    api_keys: ApiKeyCache
    bodies: RequestBodies
    files: FileServices
    inline_inputs: InlineInputs
    jobs: JobServices
    webhooks: WebhookServices


@asynccontextmanager
async def running(settings: ApiSettings) -> AsyncIterator[Services]:
    """The services, started; PlatformError where a setting or the database does not let them start."""
    async with AsyncExitStack() as stack:
        tables = Database(settings.database_url)
        stack.callback(tables.dispose)
        services = _compose(settings, tables)
        jobs, database, streaming = services.jobs, services.jobs.database, services.jobs.streaming
        stack.callback(streaming.redis_sync.close)
        stack.push_async_callback(streaming.redis.aclose)
        stack.callback(database.reads.close)
        if not await asyncio.to_thread(is_current, tables):
            raise SettingInvalid("TOKENPOST_DATABASE_URL: its tables are of another version; run: tokenpost db upgrade")
        database.writer.start()
        stack.push_async_callback(asyncio.to_thread, database.writer.stop)
        stack.push_async_callback(asyncio.to_thread, services.files.stop)
        jobs.tickets.start()
        stack.push_async_callback(asyncio.to_thread, jobs.tickets.stop)
        stack.push_async_callback(streaming.redis_health.stop)
        stack.callback(jobs.cpu_bound.close)
        stack.push_async_callback(jobs.constraint_checks.stop)
        for part in (
            jobs.compensating_delete,
            jobs.abandoned_jobs,
            database.clock,
            services.api_keys,
            jobs.catalogue,
            jobs.statistics,
            streaming.relay,
            streaming.redis_memory,
        ):
            stack.push_async_callback(part.stop)
            await part.start()
        yield services


def _compose(settings: ApiSettings, tables: Database) -> Services:
    timeout_s = settings.storage_timeout_s
    reads, writer = Reader(tables, timeout_s=timeout_s), Writer(tables)
    database = DatabaseAccess(
        reads=reads,
        writer=writer,
        inserts=TimedInserts(writer, timeout_s=timeout_s),
        clock=DatabaseClock(reads),
        timeout_s=timeout_s,
    )
    cpu_bound = CpuBoundWork()
    api_keys = ApiKeyCache(settings, reads, writer)
    url_check = WebhookUrlCheck(lambda: settings.webhook_policy(is_open=api_keys.is_open))
    # SQLite has one row for each count, and nothing to compact.
    submit = None if tables.is_sqlite else writer.submit
    statistics = QueueStatistics(reads, lease_s=settings.lease_s, refresh_s=settings.refresh_s, submit=submit)
    return Services(
        api_keys=api_keys,
        bodies=RequestBodies(cpu_bound, max_bytes=settings.max_body_bytes),
        files=_files(settings, tables, database),
        inline_inputs=InlineInputs(
            tables,
            open_content(settings.files_url, tables),
            max_stored_bytes=settings.max_file_bytes_per_owner or None,
        ),
        jobs=_jobs(settings, database, _streaming(settings, reads), cpu_bound, statistics, url_check),
        webhooks=WebhookServices(database=database, url_check=url_check),
    )


def _files(settings: ApiSettings, tables: Database, database: DatabaseAccess) -> FileServices:
    store = open_content(settings.files_url, tables)
    uploads = Uploads(
        tables,
        store,
        max_file_bytes=settings.max_file_bytes,
        max_stored_bytes=settings.max_file_bytes_per_owner or None,
    )
    return FileServices(database=database, uploads=uploads, downloads=Downloads(store))


def _streaming(settings: ApiSettings, reads: Reader) -> StreamingServices:
    timeout_s = settings.storage_timeout_s
    redis = connect_async(settings.redis_url, socket_timeout_s=timeout_s)
    logs = LogReader(redis)
    # The pub/sub connection is silent while no job generates.
    listener = connect_async(settings.redis_url, socket_timeout_s=None)
    relay = Relay(listener, Backfill(logs, reads, reader=ids.new_id("api_")), heartbeat_s=settings.heartbeat_s)
    return StreamingServices(
        redis=redis,
        redis_sync=connect(settings.redis_url, socket_timeout_s=timeout_s),
        redis_memory=RedisMemory(redis, every_s=settings.refresh_s),
        redis_health=RedisHealth(redis, relay, timeout_s=timeout_s),
        logs=logs,
        relay=relay,
    )


def _jobs(
    settings: ApiSettings,
    database: DatabaseAccess,
    streaming: StreamingServices,
    cpu_bound: CpuBoundWork,
    statistics: QueueStatistics,
    url_check: WebhookUrlCheck,
) -> JobServices:
    return JobServices(
        settings=settings,
        database=database,
        streaming=streaming,
        cpu_bound=cpu_bound,
        catalogue=Catalogue(
            database.reads,
            cpu_bound,
            lease_s=settings.lease_s,
            refresh_s=settings.refresh_s,
            allows_special_tokens=settings.allow_special_tokens,
            has_generation_defaults=settings.generation_defaults == "model",
            expected=settings.expected_models,
        ),
        statistics=statistics,
        admission_limits=AdmissionLimits(
            statistics, max_per_model=settings.max_queued_per_model, max_per_owner=settings.max_queued_per_owner
        ),
        tickets=TicketPublisher(settings.redis_url),
        webhook_url_check=url_check,
        idempotency_keys_in_flight=IdempotencyKeysInFlight(),
        refusals=RecentRefusals(),
        callers=Callers(),
        abandoned_jobs=AbandonedJobs(database.write, streaming.redis_sync),
        compensating_delete=CompensatingDelete(database.writer, every_s=settings.refresh_s),
        constraint_checks=ConstraintChecks(),
    )
