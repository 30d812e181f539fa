"""Ends of lines that no worker brings: the window of a batch is over, or the batch was cancelled."""

from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from functools import partial

import msgspec
import structlog
from sqlalchemy import Connection

from storage.batches import batch_lines, line_outcomes
from storage.batches.batch_states import LineStatus
from storage.batches.line_outcomes import CANCELLED, EXPIRED
from storage.batches.tables import Batch
from storage.contract import Failure, JobStatus
from storage.jobs import cancellation, jobs
from workers.batches.batch_services import BatchServices
from workers.maintenance.duties import PAGE

# How long lines that run may go on when their batch is cancelled. Source: OpenAI's batch guide.
CANCEL_GRACE = timedelta(minutes=10)

log = structlog.get_logger()


class BatchEnds:
    """Ends lines, a page each time."""

    def __init__(self, services: BatchServices, clock: Callable[[], datetime]) -> None:
        self._services = services
        self._clock = clock

    def expire(self, batch: Batch) -> bool:
        """End lines of an overdue batch that are no jobs yet; whether there may be more.

        Jobs have the deadline of their batch themselves.
        """
        return self._end_queued(batch, LineStatus.EXPIRED, EXPIRED)

    def cancel(self, batch: Batch) -> bool:
        """End lines of a cancelled batch; whether there may be more at once.

        Queued jobs are cancelled, and running ones once their grace is over.
        """
        if self._end_queued(batch, LineStatus.CANCELLED, CANCELLED):
            return True
        now = self._clock()
        job_ids = self._services.read(lambda c: batch_lines.list_jobs(c, batch.id, PAGE))
        states = self._services.read(lambda c: jobs.list_states(c, job_ids)) if job_ids else []
        is_over = batch.cancelling_at is not None and now >= batch.cancelling_at + CANCEL_GRACE
        for state in states:
            if state.status is JobStatus.QUEUED or (is_over and state.status is JobStatus.IN_PROGRESS):
                cancellation.cancel(self._services.write, self._services.redis, state.job_id, now)
        return False

    def reconcile(self, batch: Batch) -> bool:
        """End a page of lines whose jobs have ended or are gone; whether there were some.

        There are none but those that a process of an earlier version ended, as during a rolling upgrade.
        """
        job_ids = self._services.read(lambda c: batch_lines.list_jobs(c, batch.id, PAGE))
        states = self._services.read(lambda c: jobs.list_states(c, job_ids)) if job_ids else []
        open_ids = {state.job_id for state in states if not state.status.is_terminal}
        left = [job_id for job_id in job_ids if job_id not in open_ids]
        if left:
            log.warning("batch_lines_reconciled", batch_id=batch.id, num_lines=len(left))
            self._services.write(partial(_end_lines, batch_id=batch.id, job_ids=left))
        return bool(left)

    def _end_queued(self, batch: Batch, status: LineStatus, error: dict[str, object]) -> bool:
        num = self._services.write(lambda c: batch_lines.end_queued(c, batch.id, status, error, PAGE))
        return num == PAGE


def _end_lines(c: Connection, *, batch_id: str, job_ids: Collection[str]) -> None:
    """Note in the lines what became of these jobs."""
    for job_id in job_ids:
        job = jobs.find_summary(c, job_id)
        if job is None:
            line_outcomes.note_erased(c, {job_id: batch_id})
        elif job.status.is_terminal:
            failure = None if job.failure is None else msgspec.convert(job.failure, Failure)
            line_outcomes.note_ended(c, {job_id: batch_id}, job.status, failure)
