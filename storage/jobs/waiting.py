"""Queue status queries: how many jobs are queued, by owner, and the position of one."""

from collections.abc import Collection
from datetime import datetime

import msgspec
from sqlalchemy import Connection, func, literal_column, select
from sqlalchemy.sql.elements import ColumnElement

from storage.contract import PriorityQueue
from storage.database.table_definitions import table_of
from storage.jobs.tables import Job

_job = table_of(Job)
# A literal, as in `storage.jobs.recovery`: the index of queued jobs holds all that is asked for here.
_IS_QUEUED: ColumnElement[bool] = literal_column("status = 'queued'")
_IS_RUNNING: ColumnElement[bool] = literal_column("status = 'in_progress'")


class QueuePosition(msgspec.Struct, frozen=True, kw_only=True):
    """The position of a queued job; `number` 1 is the next of its priority queue."""

    model: str
    priority_queue: PriorityQueue
    number: int


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """How many jobs of one owner are in one priority queue of a model."""

    model: str
    priority_queue: PriorityQueue
    owner: str
    num_jobs: int


def count_waiting(c: Connection) -> list[Waiting]:
    """Queued jobs counted by model, priority queue and owner, in no order."""
    columns = _job.c.served_model, _job.c.priority_queue, _job.c.owner
    query = select(*columns, func.count().label("num_jobs")).where(_IS_QUEUED).group_by(*columns)
    return [
        Waiting(model=row.served_model, priority_queue=row.priority_queue, owner=row.owner, num_jobs=row.num_jobs)
        for row in c.execute(query)
    ]


def count_running(c: Connection) -> dict[str, int]:
    """How many jobs each worker runs, by the rows, which are newer than its last heartbeat."""
    query = select(_job.c.worker_id, func.count().label("num_jobs")).where(_IS_RUNNING).group_by(_job.c.worker_id)
    return {row.worker_id: row.num_jobs for row in c.execute(query)}


def position_of(c: Connection, model: str, priority_queue: PriorityQueue, sent_at: datetime) -> QueuePosition:
    """The position of a queued job whose ticket was sent then."""
    query = select(func.count()).where(
        _IS_QUEUED, _job.c.served_model == model, _job.c.priority_queue == priority_queue
    )
    num_before = c.execute(query.where(_job.c.sent_at < sent_at)).scalar_one()
    return QueuePosition(model=model, priority_queue=priority_queue, number=num_before + 1)


def find_position(c: Connection, job_id: str) -> QueuePosition | None:
    """The position of a job; None for one that is not queued."""
    query = select(_job.c.served_model, _job.c.priority_queue, _job.c.sent_at).where(_IS_QUEUED, _job.c.id == job_id)
    row = c.execute(query).first()
    return None if row is None else position_of(c, row.served_model, row.priority_queue, row.sent_at)


def list_positions(c: Connection, job_ids: Collection[str]) -> dict[str, QueuePosition]:
    """Positions of those of these jobs that are queued, by id."""
    if not job_ids:
        return {}
    in_order = func.rank().over(partition_by=(_job.c.served_model, _job.c.priority_queue), order_by=_job.c.sent_at)
    columns = _job.c.id, _job.c.served_model, _job.c.priority_queue, in_order.label("number")
    ranked = select(*columns).where(_IS_QUEUED).subquery()
    rows = c.execute(select(ranked).where(ranked.c.id.in_(job_ids)))
    return {
        row.id: QueuePosition(model=row.served_model, priority_queue=row.priority_queue, number=row.number)
        for row in rows
    }
