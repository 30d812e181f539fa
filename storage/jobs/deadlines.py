"""Jobs that end because nobody came in time: their own deadline passed, or nobody serves their model.

Deadlines are judged by the database's clock alone, which the sweeper and every worker share; they are set by what the
API process that took the job knows of it.
"""

from datetime import datetime

import msgspec
from sqlalchemy import Connection, Update, and_, exists, literal_column, or_, select, true, update
from sqlalchemy.sql.elements import ColumnElement

from storage.contract import Failure, JobStatus, WorkerStatus
from storage.database.columns import DatabaseNow
from storage.database.table_definitions import table_of
from storage.fleet.tables import Worker
from storage.jobs.jobs import ENDING, JobState, states_of_rows
from storage.jobs.tables import Job
from storage.jobs.transitions import sources_of
from storage.webhooks.events import IS_SUBSCRIBED, tell

EXPIRED = Failure(code="expired", message="The job did not end before its deadline.")
UNSERVED = Failure(code="model_unavailable", message="No worker served the job's model for too long.")

_job = table_of(Job)
_worker = table_of(Worker)
# Literals where a partial index has to answer; see `storage.jobs.jobs`.
_IS_OPEN: ColumnElement[bool] = literal_column("ended_at IS NULL")
IS_EXPIRED = and_(_IS_OPEN, _job.c.expires_at.is_not(None), _job.c.expires_at <= DatabaseNow())
IS_TO_CANCEL = and_(_IS_OPEN, _job.c.cancel_at.is_not(None), _job.c.cancel_at <= DatabaseNow())


def has_overdue(c: Connection) -> bool:
    """Whether a deadline has passed of a job that has not ended."""
    return bool(c.execute(_HAS_OVERDUE).scalar())


def end_overdue(c: Connection, now: datetime, limit: int = 500) -> list[JobState]:
    """Jobs whose deadline has passed, now failed with `expired` or cancelled.

    Those with a worker are its own to settle, as a cancelled one; it has to be told.
    """
    due = [_job.c.id.in_(select(_job.c.id).where(is_due).limit(limit)) for is_due in (IS_EXPIRED, IS_TO_CANCEL)]
    return _end(c, _failing(EXPIRED).where(due[0]), now) + _end(c, _CANCELLING.where(due[1]), now)


def end_unserved(c: Connection, before: datetime, now: datetime, limit: int = 500) -> list[JobState]:
    """Jobs that have waited since `before` for a model that no worker has served since, now failed.

    Dead workers must not be forgotten before `before`.
    """
    is_served = exists().where(
        _worker.c.model == _job.c.model, or_(_worker.c.status != WorkerStatus.DEAD, _worker.c.updated_at >= before)
    )
    # IS TRUE keeps SQLite from the index on `created_at`, in which lies every job that ever was.
    is_waiting = and_(literal_column("job.status = 'queued'"), (_job.c.created_at < before).is_(true()))
    unserved = select(_job.c.id).where(is_waiting, ~is_served).limit(limit)
    return _end(c, _failing(UNSERVED).where(_job.c.id.in_(unserved), _job.c.status == JobStatus.QUEUED), now)


def _failing(failure: Failure) -> Update:
    return _ending(JobStatus.FAILED).values(failure=msgspec.to_builtins(failure))


def _ending(status: JobStatus) -> Update:
    return (
        update(_job)
        .where(_job.c.status.in_(sources_of(status)))
        .values({"status": status} | ENDING)
        .returning(_job.c.id, _job.c.attempt, _job.c.status, _job.c.worker_id, IS_SUBSCRIBED)
    )


_HAS_OVERDUE = select(or_(exists().where(IS_EXPIRED), exists().where(IS_TO_CANCEL)))
_CANCELLING = _ending(JobStatus.CANCELLED)


def _end(c: Connection, statement: Update, now: datetime) -> list[JobState]:
    rows = c.execute(statement, {"moment": now}).all()
    for row in rows:
        tell(c, row, row.id, row.status, now)
    return states_of_rows(rows)
