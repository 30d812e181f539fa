"""Ends overdue jobs: past their own deadline, or queued for a model without a worker."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import structlog
from redis import Redis
from sqlalchemy import Connection

from storage.broker.event_log import control_channel, encode_cancel
from storage.database.connections import Database
from storage.database.group_commit import Writer
from storage.jobs import deadlines
from storage.jobs.records import JobState
from workers.maintenance.duties import PAGE
from workers.maintenance.log_repair import LogRepair

# How long a commit may take.
PATIENCE_S = 10.0
# A platform that was just started has no workers yet, and its rows show a long absence.
WARM_UP_S = 600.0
CHECK_EVERY_S = 60.0

log = structlog.get_logger()


class Overdue:
    """Ends them in their rows first; then their workers are notified, or log repair appends the END."""

    def __init__(
        self, database: Database, writer: Writer, connection: Redis, log_repair: LogRepair, *, unserved_after_s: float
    ) -> None:
        """unserved_after_s: how long a queued job waits for a model without a worker"""
        self._database = database
        self._writer = writer
        self._redis = connection
        self._log_repair = log_repair
        self._unserved_after_s = unserved_after_s
        self._check_unserved_at = time.monotonic() + min(unserved_after_s, WARM_UP_S)

    def end_overdue(self) -> bool:
        """End a page of jobs whose deadline has passed; whether there may be more."""
        with self._database.connect() as connection:
            if not deadlines.has_overdue(connection):
                return False
        now = datetime.now(UTC)
        return self._end("jobs_overdue", lambda connection: deadlines.end_overdue(connection, now, PAGE)) >= PAGE

    def end_unserved(self) -> bool:
        """End a page of jobs whose model had no worker for too long; once a minute, as it is a matter of hours."""
        if time.monotonic() < self._check_unserved_at:
            return False
        now = datetime.now(UTC)
        before = now - timedelta(seconds=self._unserved_after_s)
        with self._database.connect() as connection:
            job_ids = deadlines.list_unserved(connection, before, PAGE)
        if job_ids:
            self._end("jobs_unserved", lambda connection: deadlines.end_unserved(connection, job_ids, now))
        if len(job_ids) >= PAGE:
            return True
        self._check_unserved_at = time.monotonic() + min(self._unserved_after_s, CHECK_EVERY_S)
        return False

    def _end(self, event: str, operation: Callable[[Connection], list[JobState]]) -> int:
        """How many jobs the operation ended; their workers are notified, or their logs completed."""
        ended = self._writer.submit(operation).result(PATIENCE_S)
        if ended:
            log.warning(event, num_jobs=len(ended))
        for state in ended:
            if state.worker_id is None:
                self._log_repair.repair(state.job_id)
            else:
                self._redis.publish(control_channel(state.worker_id), encode_cancel(state.job_id))
        return len(ended)
