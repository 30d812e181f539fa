"""What a process of the API holds while it runs, and hands down to its routes."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import redis
import redis.asyncio
import structlog
from anyio import CapacityLimiter, to_thread
from redis.exceptions import RedisError
from sqlalchemy import Connection

from api.auth import Gate
from api.catalogue import Catalogue
from api.protocol.outcome import entries_of
from api.relay import Relay
from api.settings import ApiSettings
from storage import cancellation, jobs
from storage.contract import JobStatus, LogEntry
from storage.database import Database
from storage.errors import PlatformError
from storage.queue import TicketPublisher
from storage.tables import Job
from storage.writer import Writer

T = TypeVar("T")
# Threads that may wait for the database or Redis at once; more requests wait for their turn.
_MAX_READS = 16
# A cancelled job's worker stores what it had; a worker that does not is dead, and then the row is all there is.
_SETTLE_S = 10

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The API's way to everything below it."""

    settings: ApiSettings
    database: Database
    writer: Writer
    tickets: TicketPublisher
    redis: redis.Redis
    async_redis: redis.asyncio.Redis
    listening_redis: redis.asyncio.Redis
    relay: Relay
    catalogue: Catalogue
    gate: Gate
    threads: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(_MAX_READS))
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def on_thread(self, call: Callable[[], T]) -> T:
        """What a blocking call returns, on one of our threads."""
        return await to_thread.run_sync(call, limiter=self.threads)

    async def read(self, operation: Callable[[Connection], T]) -> T:
        """What a query returns, on one of our threads."""
        return await self.on_thread(lambda: _read(self.database, operation))

    async def cancel(self, job_id: str) -> jobs.Cancelled | None:
        """Cancel a job; what it was, None when it had ended before."""
        now = datetime.now(UTC)
        return await self.on_thread(
            lambda: cancellation.cancel(
                lambda operation: self.writer.submit(operation).result(), self.redis, job_id, now
            )
        )

    def cancel_soon(self, job_id: str) -> None:
        """Cancel a job whose caller has left; nobody waits for it."""
        self.spawn(self._cancel_quietly(job_id))

    def spawn(self, coroutine: Coroutine[None, None, None]) -> None:
        """Run something that outlives its request."""
        task = asyncio.create_task(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def finish_tasks(self) -> None:
        """Wait for what was spawned."""
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def _cancel_quietly(self, job_id: str) -> None:
        try:
            await self.cancel(job_id)
        except (PlatformError, RedisError) as error:
            log.warning("cancel_failed", job_id=job_id, error=str(error))


def read_ended(database: Database, job_id: str, now: datetime) -> list[LogEntry] | None:
    """All entries of a job that has ended, from its row; None while more may come."""
    job = _read(database, lambda connection: jobs.find(connection, job_id))
    return None if job is None else ended_entries(job, now)


def ended_entries(job: Job, now: datetime) -> list[LogEntry] | None:
    """All entries of a job that has ended, from its row; None while more may come."""
    end = jobs.end_of(job)
    if end is None or job.ended_at is None:
        return None
    is_settled = end.status is not JobStatus.CANCELLED or job.result is not None or job.worker_id is None
    if not is_settled and now - job.ended_at < timedelta(seconds=_SETTLE_S):
        return None
    return list(entries_of(jobs.result_of(job), end))


def _read(database: Database, operation: Callable[[Connection], T]) -> T:
    with database.connect() as connection:
        return operation(connection)
