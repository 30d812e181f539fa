"""Compensating deletes: rows of refused jobs that may have been committed are erased, with retries."""

import asyncio
import queue
from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial

import structlog

from api.task_cancellation import end
from storage.database.group_commit import Writer
from storage.errors import StorageUnavailable
from storage.jobs import attaching

# Failed deletes are retried in batches of this size.
_MAX_BATCH = 500
# Failed deletes that are kept: those of half a minute of inserts while the database hangs.
_MAX_FAILED = 100_000

log = structlog.get_logger()


class CompensatingDelete:
    """Erases jobs whose insert was not confirmed in time, unless another request has attached to them since.

    An insert that timed out may have been committed, and the database may be down at that moment. Without the delete,
    a job would run although its caller received an error. Deletes that are pending when the process ends are lost.
    """

    def __init__(self, writer: Writer, *, every_s: float) -> None:
        """every_s: pause before failed deletes are retried"""
        self._writer = writer
        self._every_s = every_s
        self._failed: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to retry failed deletes."""
        self._task = asyncio.create_task(self._run(), name="compensating-delete")

    async def stop(self) -> None:
        """Stop retrying."""
        if self._task is not None:
            await end(self._task)
        if not self._failed.empty():
            log.warning("compensating_delete_failed", num_jobs=self._failed.qsize())

    def erase(self, job_id: str) -> None:
        """Queue the delete; the writer runs it after the insert, should that still be committed."""
        self._erase([job_id])

    def _erase(self, job_ids: Sequence[str]) -> None:
        erasing = self._writer.submit(lambda connection: attaching.compensating_delete(connection, job_ids))
        erasing.add_done_callback(partial(self._note, job_ids))

    def _note(self, job_ids: Sequence[str], erasing: Future[None]) -> None:
        """Runs on the writer's thread."""
        error = erasing.exception()
        if isinstance(error, StorageUnavailable):
            for job_id in job_ids:
                self._retry_later(job_id)
        elif error is not None:
            # A retry would fail in the same way.
            log.error("compensating_delete_failed", num_jobs=len(job_ids), error=str(error))

    def _retry_later(self, job_id: str) -> None:
        if self._failed.qsize() < _MAX_FAILED:
            self._failed.put(job_id)
        else:
            log.error("compensating_delete_dropped", job_id=job_id)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            job_ids = [self._failed.get_nowait() for _ in range(min(_MAX_BATCH, self._failed.qsize()))]
            if job_ids:
                self._erase(job_ids)
