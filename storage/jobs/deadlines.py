"""Deadlines: jobs are ended when their own deadline has passed, or when no worker has served their model for too long.

Deadlines are compared with the database's clock, which the sweeper and every worker share. The API process that accepts
a job sets them by its estimate of that clock.
"""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import Connection, Integer, and_, bindparam, exists, literal_column, or_, select, true
from sqlalchemy.sql.elements import ColumnElement

from storage.contract import Failure, JobStatus, WorkerStatus
from storage.database.columns import DatabaseNow
from storage.database.table_definitions import table_of
from storage.fleet.tables import Worker
from storage.jobs import ending, recovery
from storage.jobs.ending import Outcome
from storage.jobs.records import JobState
from storage.jobs.tables import Job

EXPIRED = Failure(code="expired", message="The job did not end before its deadline.")
UNSERVED = Failure(code="model_unavailable", message="No worker served the job's model for too long.")

_job = table_of(Job)
_worker = table_of(Worker)
# Literals where a partial index has to answer; see `storage.jobs.jobs`.
_IS_QUEUED: ColumnElement[bool] = literal_column("status = 'queued'")
_IS_OPEN: ColumnElement[bool] = literal_column("ended_at IS NULL")
IS_EXPIRED = and_(_IS_OPEN, _job.c.expires_at.is_not(None), _job.c.expires_at <= DatabaseNow())
IS_TO_CANCEL = and_(_IS_OPEN, _job.c.cancel_at.is_not(None), _job.c.cancel_at <= DatabaseNow())


def has_overdue(c: Connection) -> bool:
    """Whether a deadline has passed of a job that has not ended."""
    return bool(c.execute(_HAS_OVERDUE).scalar())


def end_overdue(c: Connection, now: datetime, limit: int = 500) -> list[JobState]:
    """Jobs whose deadline has passed, now failed with `expired` or cancelled.

    The caller notifies the workers of those that ran; they store the partial results, as of cancelled jobs.
    """
    return [
        *ending.end(c, _FAIL_EXPIRED, Outcome(failure=EXPIRED), now, {"room": limit}),
        *ending.end(c, _CANCEL_DUE, Outcome(), now, {"room": limit}),
    ]


def list_unserved(c: Connection, before: datetime, limit: int = 500) -> list[str]:
    """Ids of jobs that were queued before `before` for a model that no worker has served since.

    For a connection for reading: it may pass over many younger jobs of such a model. Dead workers must not be forgotten
    before `before`.
    """
    is_served = or_(_worker.c.status != WorkerStatus.DEAD, _worker.c.updated_at >= before)
    served = set(c.execute(select(_worker.c.model).where(is_served)).scalars())
    found: list[str] = []
    for model in {model for model, _ in recovery.list_queues(c)} - served:
        # IS TRUE keeps SQLite from the index on `created_at`, which holds every job.
        is_old = and_(_IS_QUEUED, _job.c.served_model == model, (_job.c.created_at < before).is_(true()))
        found += c.execute(select(_job.c.id).where(is_old).limit(limit - len(found))).scalars()
    return found


def end_unserved(c: Connection, job_ids: Collection[str], now: datetime) -> list[JobState]:
    """Those of these jobs that are still queued, now failed because no worker serves their model."""
    failing = ending.ending(JobStatus.FAILED, _job.c.id.in_(job_ids), _job.c.status == JobStatus.QUEUED)
    return ending.end(c, failing, Outcome(failure=UNSERVED), now) if job_ids else []


def _some(is_due: ColumnElement[bool]) -> ColumnElement[bool]:
    return _job.c.id.in_(select(_job.c.id).where(is_due).limit(bindparam("room", type_=Integer)))


_HAS_OVERDUE = select(or_(exists().where(IS_EXPIRED), exists().where(IS_TO_CANCEL)))
_FAIL_EXPIRED = ending.ending(JobStatus.FAILED, _some(IS_EXPIRED))
_CANCEL_DUE = ending.ending(JobStatus.CANCELLED, _some(IS_TO_CANCEL))
