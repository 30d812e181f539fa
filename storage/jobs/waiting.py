"""All queries about jobs that wait: how many, for whom, and at which place."""

from collections.abc import Collection
from datetime import datetime

import msgspec
from sqlalchemy import Connection, func, literal_column, select
from sqlalchemy.sql.elements import ColumnElement

from storage.contract import Lane
from storage.database.table_definitions import table_of
from storage.jobs.tables import Job

_job = table_of(Job)
# A literal, as in `storage.jobs.recovery`: the index of queued jobs holds all that is asked for here.
_IS_QUEUED: ColumnElement[bool] = literal_column("status = 'queued'")
_IS_RUNNING: ColumnElement[bool] = literal_column("status = 'in_progress'")


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a queued job stands; `position` 1 is the next of its lane."""

    model: str
    lane: Lane
    position: int


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """How many jobs of one owner wait in one lane of a model."""

    model: str
    lane: Lane
    owner: str
    num_jobs: int


def count_waiting(c: Connection) -> list[Waiting]:
    """Everybody who waits, in no order."""
    columns = _job.c.model, _job.c.lane, _job.c.owner
    query = select(*columns, func.count().label("num_jobs")).where(_IS_QUEUED).group_by(*columns)
    return [Waiting(model=row.model, lane=row.lane, owner=row.owner, num_jobs=row.num_jobs) for row in c.execute(query)]


def count_running(c: Connection) -> dict[str, int]:
    """How many jobs each worker runs, as the rows say: sooner than its next beat."""
    query = select(_job.c.worker_id, func.count().label("num_jobs")).where(_IS_RUNNING).group_by(_job.c.worker_id)
    return {row.worker_id: row.num_jobs for row in c.execute(query)}


def place_of(c: Connection, model: str, lane: Lane, sent_at: datetime) -> Place:
    """The place of a queued job whose ticket was sent then."""
    query = select(func.count()).where(_IS_QUEUED, _job.c.model == model, _job.c.lane == lane)
    num_before = c.execute(query.where(_job.c.sent_at < sent_at)).scalar_one()
    return Place(model=model, lane=lane, position=num_before + 1)


def find_place(c: Connection, job_id: str) -> Place | None:
    """The place of a job; None for one that is not queued."""
    query = select(_job.c.model, _job.c.lane, _job.c.sent_at).where(_IS_QUEUED, _job.c.id == job_id)
    row = c.execute(query).first()
    return None if row is None else place_of(c, row.model, row.lane, row.sent_at)


def list_places(c: Connection, job_ids: Collection[str]) -> dict[str, Place]:
    """The places of those of these jobs that are queued, by id."""
    if not job_ids:
        return {}
    in_order = func.rank().over(partition_by=(_job.c.model, _job.c.lane), order_by=_job.c.sent_at)
    columns = _job.c.id, _job.c.model, _job.c.lane, in_order.label("position")
    line = select(*columns).where(_IS_QUEUED).subquery()
    rows = c.execute(select(line).where(line.c.id.in_(job_ids)))
    return {row.id: Place(model=row.model, lane=row.lane, position=row.position) for row in rows}
