"""Jobs that were refused although their rows may have been written: they are erased, as often as that takes."""

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

# Of those that are left over, so many are erased at a time.
_MANY = 500

log = structlog.get_logger()


class CompensatingDelete:
    """Erases what nobody could be told of in time, unless somebody found and joined it since.

    A commit that was cut off may have been made, and the database may be away then: without this, a job whose caller
    was told that there is none would run. Those that are left when the process ends stay.
    """

    def __init__(self, writer: Writer, *, every_s: float) -> None:
        """every_s: until what failed is tried again"""
        self._writer = writer
        self._every_s = every_s
        self._failed: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to look after what fails."""
        self._task = asyncio.create_task(self._run(), name="take-back")

    async def stop(self) -> None:
        """Try no more."""
        if self._task is not None:
            await end(self._task)
        if not self._failed.empty():
            log.warning("jobs_not_taken_back", num_jobs=self._failed.qsize())

    def erase(self, job_id: str) -> None:
        """Begin now: behind its insert in the writer's line, should that be committed after all."""
        self._erase([job_id])

    def _erase(self, job_ids: Sequence[str]) -> None:
        erasing = self._writer.submit(lambda connection: attaching.compensating_delete(connection, job_ids))
        erasing.add_done_callback(partial(self._note, job_ids))

    def _note(self, job_ids: Sequence[str], erasing: Future[None]) -> None:
        """Runs on the writer's thread."""
        error = erasing.exception()
        if isinstance(error, StorageUnavailable):
            for job_id in job_ids:
                self._failed.put(job_id)
        elif error is not None:
            # It would not be better the next time.
            log.error("jobs_not_taken_back", num_jobs=len(job_ids), error=str(error))

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            job_ids = [self._failed.get_nowait() for _ in range(min(_MANY, self._failed.qsize()))]
            if job_ids:
                self._erase(job_ids)
