"""Retention: erases jobs whose time is over, deleted conversations, expired keys, and workers that died long ago."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import structlog
from redis import Redis
from sqlalchemy import Connection

from storage.accounts import idempotency
from storage.broker.event_log import delete_logs
from storage.conversations import conversation_rows
from storage.database.connections import Database
from storage.database.group_commit import Writer
from storage.fleet import workers
from storage.jobs import recovery
from workers.maintenance.duties import PAGE

PATIENCE_S = 10.0
FORGET_KEYS_EVERY_S = 60.0
FORGET_WORKERS_EVERY_S = 600.0
# As long as the row of a model's last worker is there, it says since when the model is not served.
MIN_DEAD_WORKER_AGE = timedelta(days=1)
_KEYS_PAGE = 5000

log = structlog.get_logger()
T = TypeVar("T")


class Retention:
    """Duties that delete what nobody can ask for any more."""

    def __init__(self, database: Database, writer: Writer, connection: Redis, *, unserved_after_s: float) -> None:
        self._database = database
        self._writer = writer
        self._redis = connection
        self._dead_worker_age = max(MIN_DEAD_WORKER_AGE, timedelta(seconds=2 * unserved_after_s))
        self._forget_keys_at = self._forget_workers_at = 0.0

    def erase_jobs(self) -> bool:
        """Erase a page of jobs; whether more may be due. Logs go first, so that a crash leaves rows to find again."""
        with self._database.connect() as connection:
            job_ids = recovery.list_erasable(connection, datetime.now(UTC), PAGE)
        if not job_ids:
            return False
        delete_logs(self._redis, job_ids)
        self._write(lambda connection: recovery.erase_many(connection, job_ids))
        log.info("jobs_erased", num_jobs=len(job_ids))
        # A page of long jobs has few of them.
        return True

    def erase_conversations(self) -> bool:
        """Erase some items of a deleted conversation; whether more are due."""
        with self._database.connect() as connection:
            conversation_id = conversation_rows.find_deleted(connection)
        if conversation_id is None:
            return False
        self._write(lambda connection: conversation_rows.erase_some(connection, conversation_id))
        return True

    def forget_keys(self) -> bool:
        """Forget a page of expired idempotency keys, which are free already; whether more are due."""
        if time.monotonic() < self._forget_keys_at:
            return False
        now = datetime.now(UTC)
        num_keys = self._write(lambda connection: idempotency.forget_expired(connection, now, _KEYS_PAGE))
        if num_keys:
            log.info("idempotency_keys_forgotten", num_keys=num_keys)
        if num_keys == _KEYS_PAGE:
            return True
        self._forget_keys_at = time.monotonic() + FORGET_KEYS_EVERY_S
        return False

    def forget_workers(self) -> bool:
        """Forget workers that died long ago; nothing is left then."""
        if time.monotonic() >= self._forget_workers_at:
            self._forget_workers_at = time.monotonic() + FORGET_WORKERS_EVERY_S
            before = datetime.now(UTC) - self._dead_worker_age
            self._write(lambda connection: workers.forget_dead(connection, before))
        return False

    def _write(self, operation: Callable[[Connection], T]) -> T:
        return self._writer.submit(operation).result(PATIENCE_S)
