"""Attempts: the timeline of a job. A row is inserted in the transaction in which an attempt ends."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, insert, select

from storage.database.table_definitions import table_of
from storage.jobs.tables import Attempt, Job

_attempt = table_of(Attempt)
_job = table_of(Job)

REQUEUED = "requeued"
WORKER_LOST = "worker_lost"
# What `insert_ended` needs of a job's row, as it was while the attempt ran.
COLUMNS = (_job.c.id, _job.c.attempt, _job.c.worker_id, _job.c.started_at)


def insert_ended(
    c: Connection,
    rows: Sequence[Row[*tuple[Any, ...]]],
    outcome: str,
    now: datetime,
    first_token_at: datetime | None = None,
) -> None:
    """Note that these attempts ended; jobs that no worker ran are left out.

    rows:    with COLUMNS
    outcome: as in `storage.jobs.tables.Attempt`
    """
    ended = [
        {
            "job_id": row.id,
            "number": row.attempt,
            "worker_id": row.worker_id,
            "claimed_at": row.started_at,
            "first_token_at": first_token_at,
            "ended_at": now,
            "outcome": outcome,
        }
        for row in rows
        if row.worker_id is not None
    ]
    if ended:
        c.execute(insert(_attempt), ended)


def list_attempts(c: Connection, job_id: str) -> list[Attempt]:
    """The ended attempts at a job, in order."""
    rows = c.execute(select(_attempt).where(_attempt.c.job_id == job_id).order_by(_attempt.c.number))
    return [Attempt(**row._mapping) for row in rows]
