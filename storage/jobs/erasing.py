"""Erasing jobs: the row and everything that is stored of it, in one transaction.

The input of an erased job stays, reduced to its context, while another job continues it; it goes with the last of them.
"""

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, exists, select, update
from sqlalchemy.sql.elements import ColumnElement

from storage.accounts import idempotency
from storage.batches import line_outcomes
from storage.database.table_definitions import table_of
from storage.jobs.tables import Attempt, Job, JobInput, JobResult

_job = table_of(Job)
_input = table_of(JobInput)
_result = table_of(JobResult)
_attempt = table_of(Attempt)
_child = _input.alias()
_HAS_CHILD = exists().where(_child.c.parent_id == _input.c.job_id)
_HAS_JOB = exists().where(_job.c.id == _input.c.job_id)


def erase_where(c: Connection, *conditions: ColumnElement[bool]) -> Sequence[Row[*tuple[Any, ...]]]:
    """Rows of (id, status, worker_id, attempt, ...) of the jobs that met the conditions, now erased with their keys."""
    columns = _job.c.id, _job.c.status, _job.c.worker_id, _job.c.attempt, _job.c.batch_id
    rows = c.execute(delete(_job).where(*conditions).returning(*columns)).all()
    batch_by_job = {row.id: row.batch_id for row in rows if row.batch_id is not None}
    if batch_by_job:
        line_outcomes.note_erased(c, batch_by_job)
    if rows:
        _erase_payload(c, [row.id for row in rows])
    return rows


def _erase_payload(c: Connection, job_ids: Collection[str]) -> None:
    idempotency.forget(c, job_ids)
    c.execute(delete(_result).where(_result.c.job_id.in_(job_ids)))
    c.execute(delete(_attempt).where(_attempt.c.job_id.in_(job_ids)))
    _release_inputs(c, job_ids)


def _release_inputs(c: Connection, job_ids: Collection[str]) -> None:
    """Erase the inputs of jobs whose rows are gone, and those that only they continued.

    An input that another job continues keeps its context alone.
    """
    parents = _delete(c, job_ids)
    c.execute(update(_input).where(_input.c.job_id.in_(job_ids)).values(request={}, spec=b""))
    while parents:
        parents = _delete(c, parents)


def _delete(c: Connection, job_ids: Collection[str]) -> Sequence[str]:
    """Erase those of these inputs that have neither a job nor a job that continues them; ids of their parents."""
    if c.dialect.name != "sqlite":
        # Who inserts a job that continues one of these waits for us, or we for them: SQLite has one writer anyway.
        c.execute(select(_input.c.job_id).where(_input.c.job_id.in_(job_ids)).with_for_update())
    deleting = delete(_input).where(_input.c.job_id.in_(job_ids), ~_HAS_CHILD, ~_HAS_JOB)
    rows = c.execute(deleting.returning(_input.c.parent_id)).scalars()
    return list({parent_id for parent_id in rows if parent_id is not None})
