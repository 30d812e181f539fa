"""Queue positions: exact near the head of a queue, and samples of the rest from which positions are estimated.

A queued job can be moved to another priority.
"""

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta

import msgspec
from msgspec import structs
from sqlalchemy import Connection, func, literal, literal_column, select, tuple_, update
from sqlalchemy.sql.elements import ColumnElement

from storage.contract import JobStatus, PriorityQueue, priority_queue_of
from storage.database.columns import DatabaseNow, UtcDateTime
from storage.database.table_definitions import table_of
from storage.errors import JobConflict, JobNotFound
from storage.formats import decode_spec, encode_spec
from storage.jobs.recovery import Ticket, database_now
from storage.jobs.tables import Job, JobInput

_job = table_of(Job)
_input = table_of(JobInput)
# A literal, as in `storage.jobs.recovery`: the index of queued jobs holds all columns that are read here.
_IS_QUEUED: ColumnElement[bool] = literal_column("status = 'queued'")
_IS_RUNNING: ColumnElement[bool] = literal_column("status = 'in_progress'")
# Positions up to here are counted. Counting costs about 0.1 us a job.
MAX_EXACT_POSITION = 1000
# One row in so many is a sample.
SAMPLE_SIZE = 1000
# Younger rows are not sampled: a transaction that is still open may commit a row that is older than the newest one.
_SAMPLING_DELAY = timedelta(seconds=2)


class QueuePosition(msgspec.Struct, frozen=True, kw_only=True):
    """The position of a queued job; `number` 1 is the next of its priority queue.

    sent_at: set where the job is behind MAX_EXACT_POSITION others, and `number` is only a lower bound
    """

    model: str
    priority_queue: PriorityQueue
    number: int
    sent_at: datetime | None = None


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """A queued job behind SAMPLE_SIZE others of the sample before it."""

    sent_at: datetime
    owner: str
    job_id: str


def count_running(c: Connection) -> dict[str, int]:
    """How many jobs each worker runs, by the rows, which are newer than its last heartbeat."""
    query = select(_job.c.worker_id, func.count().label("num_jobs")).where(_IS_RUNNING).group_by(_job.c.worker_id)
    return {row.worker_id: row.num_jobs for row in c.execute(query)}


def position_of(c: Connection, model: str, priority_queue: PriorityQueue, sent_at: datetime) -> QueuePosition:
    """The position of a queued job whose ticket was sent then; a bounded number of rows is counted."""
    before = select(literal(1)).where(_is_in(model, priority_queue), _job.c.sent_at < sent_at)
    counted = before.limit(MAX_EXACT_POSITION).subquery()
    num_before = c.execute(select(func.count()).select_from(counted)).scalar_one()
    return _position(model, priority_queue, num_before + 1, sent_at)


def find_position(c: Connection, job_id: str) -> QueuePosition | None:
    """The position of a job; None for one that is not queued."""
    query = select(_job.c.served_model, _job.c.priority_queue, _job.c.sent_at).where(_IS_QUEUED, _job.c.id == job_id)
    row = c.execute(query).first()
    return None if row is None else position_of(c, row.served_model, row.priority_queue, row.sent_at)


def list_positions(c: Connection, job_ids: Collection[str]) -> dict[str, QueuePosition]:
    """Positions of those of these jobs that are queued, by id; of each queue a bounded number of rows is read."""
    if not job_ids:
        return {}
    columns = _job.c.id, _job.c.served_model, _job.c.priority_queue, _job.c.sent_at
    rows = c.execute(select(*columns).where(_job.c.id.in_(job_ids), _IS_QUEUED)).all()
    exact: dict[str, int] = {}
    for model, priority_queue in {(row.served_model, row.priority_queue) for row in rows}:
        exact |= _head_positions(c, model, priority_queue, job_ids)
    behind = MAX_EXACT_POSITION + 1
    return {
        row.id: _position(row.served_model, row.priority_queue, exact.get(row.id, behind), row.sent_at) for row in rows
    }


def _head_positions(
    c: Connection, model: str, priority_queue: PriorityQueue, job_ids: Collection[str]
) -> dict[str, int]:
    """Positions of those of these jobs that are among the first MAX_EXACT_POSITION of a queue."""
    head = select(_job.c.id, _job.c.sent_at).where(_is_in(model, priority_queue)).order_by(_job.c.sent_at)
    first = head.limit(MAX_EXACT_POSITION).subquery()
    ranked = select(first.c.id, func.rank().over(order_by=first.c.sent_at).label("number")).subquery()
    return {row.id: row.number for row in c.execute(select(ranked).where(ranked.c.id.in_(job_ids)))}


def find_oldest(c: Connection, model: str, priority_queue: PriorityQueue) -> datetime | None:
    """When the ticket at the head of a queue was sent; None for an empty queue."""
    query = select(_job.c.sent_at).where(_is_in(model, priority_queue)).order_by(_job.c.sent_at).limit(1)
    return c.execute(query).scalar()


def find_newest(c: Connection, model: str, priority_queue: PriorityQueue) -> datetime | None:
    """When the ticket at the tail of a queue was sent; None for an empty queue."""
    query = select(_job.c.sent_at).where(_is_in(model, priority_queue)).order_by(_job.c.sent_at.desc()).limit(1)
    return c.execute(query).scalar()


def list_samples(
    c: Connection, model: str, priority_queue: PriorityQueue, after: Sample | None, limit: int
) -> list[Sample]:
    """The next samples of a queue in order, at most `limit`: each is SAMPLE_SIZE jobs behind the one before it."""
    samples: list[Sample] = []
    order = _job.c.sent_at, _job.c.owner, _job.c.id
    query = select(*order).where(_is_in(model, priority_queue)).order_by(*order).limit(1).offset(SAMPLE_SIZE - 1)
    query = query.where(_job.c.sent_at < database_now(c) - _SAMPLING_DELAY)
    while len(samples) < limit:
        row = c.execute(query if after is None else query.where(_is_after(after))).first()
        if row is None:
            break
        after = Sample(sent_at=row.sent_at, owner=row.owner, job_id=row.id)
        samples.append(after)
    return samples


def move(c: Connection, job_id: str, owner: str, *, priority: int, tier: Mapping[str, object]) -> Ticket | None:
    """The ticket that a queued job needs in its new priority queue; None where it stays in its own.

    tier: the fields of the request that ask for the priority, which take the place of those in the stored request

    The old ticket stays in its queue, as in `recovery.move_to_front`. Raises JobNotFound, and JobConflict for a job
    that is not queued any more.
    """
    query = select(_job.c.status, _job.c.served_model, _job.c.priority_queue)
    row = c.execute(query.where(_job.c.id == job_id, _job.c.owner == owner).with_for_update()).first()
    if row is None:
        raise JobNotFound(f"No job with id '{job_id}'.")
    if row.status is not JobStatus.QUEUED:
        raise JobConflict(f"The job is {row.status.value}; only a queued one can be moved.")
    payload = c.execute(select(_input).where(_input.c.job_id == job_id)).one()
    # The format stays as it is: the priority is in all of them.
    _, _, spec = encode_spec(
        structs.replace(decode_spec(payload.spec_kind, payload.spec_version, payload.spec), priority=priority)
    )
    kept = {name: value for name, value in payload.request.items() if name not in ("priority", "service_tier")}
    c.execute(update(_input).where(_input.c.job_id == job_id).values(spec=spec, request={**kept, **tier}))
    priority_queue = priority_queue_of(priority)
    if priority_queue is row.priority_queue:
        return None
    moving = update(_job).where(_job.c.id == job_id).values(priority_queue=priority_queue, sent_at=DatabaseNow())
    c.execute(moving)
    return Ticket(job_id=job_id, model=row.served_model, priority_queue=priority_queue)


def _is_in(model: str, priority_queue: PriorityQueue) -> ColumnElement[bool]:
    return _IS_QUEUED & (_job.c.served_model == model) & (_job.c.priority_queue == priority_queue)


def _is_after(sample: Sample) -> ColumnElement[bool]:
    sent_at = literal(sample.sent_at, type_=UtcDateTime())
    return tuple_(_job.c.sent_at, _job.c.owner, _job.c.id) > tuple_(sent_at, sample.owner, sample.job_id)


def _position(model: str, priority_queue: PriorityQueue, number: int, sent_at: datetime) -> QueuePosition:
    return QueuePosition(
        model=model,
        priority_queue=priority_queue,
        number=number,
        sent_at=sent_at if number > MAX_EXACT_POSITION else None,
    )
