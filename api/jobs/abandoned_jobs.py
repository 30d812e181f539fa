"""Abandoned jobs: foreground jobs whose last caller has disconnected, cancelled in batches."""

import asyncio
from datetime import UTC, datetime

import structlog
from redis import Redis
from redis.exceptions import RedisError

from api.task_cancellation import end
from storage.errors import PlatformError
from storage.jobs import cancellation
from storage.jobs.cancellation import Write

# One batch is one write transaction and a few round trips to Redis.
_MAX_BATCH = 500

log = structlog.get_logger()


class AbandonedJobs:
    """Cancels what was abandoned since the last batch at once, in one thread."""

    def __init__(self, write: Write, redis: Redis) -> None:
        """write: runs an operation in a transaction, from a thread"""
        self._write = write
        self._redis = redis
        self._pending: dict[str, int] = {}
        self._is_pending = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to cancel."""
        self._task = asyncio.create_task(self._run(), name="abandoned-jobs")

    async def stop(self) -> None:
        """Cancel what is pending, then stop."""
        if self._task is not None:
            await end(self._task)
        while self._pending:
            await self._cancel_batch()

    def add(self, job_id: str, number: int) -> None:
        """Cancel a job soon, unless another caller attaches to it.

        number: the caller's, as `attaching.attach` returned it
        """
        self._pending[job_id] = number
        self._is_pending.set()

    async def _run(self) -> None:
        while True:
            await self._is_pending.wait()
            self._is_pending.clear()
            while self._pending:
                await self._cancel_batch()

    async def _cancel_batch(self) -> None:
        batch = {job_id: self._pending.pop(job_id) for job_id in list(self._pending)[:_MAX_BATCH]}
        log.info("jobs_abandoned", num_jobs=len(batch))
        now = datetime.now(UTC)
        try:
            await asyncio.to_thread(cancellation.cancel_abandoned, self._write, self._redis, batch, now)
        except (PlatformError, RedisError) as error:
            # The rows say what was cancelled; workers read them, and the sweeper completes the logs.
            log.warning("cancel_failed", num_jobs=len(batch), error=str(error))
