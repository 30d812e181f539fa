"""Recovery queries of the sweeper: lost tickets, jobs of dead workers, jobs whose retention is over."""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from itertools import accumulate
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, Update, and_, bindparam, exists, func, literal_column, or_, select, update
from sqlalchemy.sql.elements import ColumnElement

from storage.contract import Failure, JobStatus, PriorityQueue, WorkerStatus
from storage.database.columns import DatabaseNow, SecondsAfter, UtcDateTime
from storage.database.table_definitions import table_of
from storage.derived.tables import QueueCount
from storage.fleet.tables import Worker
from storage.jobs import attempts, ending, records
from storage.jobs.continuations.continuation_order import IS_NEXT
from storage.jobs.ending import Outcome
from storage.jobs.erasing import erase_where
from storage.jobs.jobs import IS_RUNNING
from storage.jobs.records import JobState
from storage.jobs.tables import Job

_job = table_of(Job)
_worker = table_of(Worker)
_count = table_of(QueueCount)
_IS_QUEUED: ColumnElement[bool] = literal_column("status = 'queued'")
# Literals, so that the index on such jobs answers.
_IS_KEPT: ColumnElement[bool] = literal_column("job.erase_at IS NULL AND job.ended_at IS NOT NULL")
_TICKET = (_job.c.id, _job.c.served_model, _job.c.priority_queue)
WORKER_LOST = Failure(code="worker_lost", message="Every worker that ran this job was lost; it is not tried again.")


class Ticket(msgspec.Struct, frozen=True, kw_only=True):
    """A job that needs a (new) ticket in a queue of its model; `model` is the one that serves it."""

    job_id: str
    model: str
    priority_queue: PriorityQueue


class Recovered(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs of dead workers: those queued again, and those failed after too many lost attempts."""

    tickets: list[Ticket]
    failed: list[JobState]


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs that ended until a moment, from which the next list goes on."""

    job_ids: list[str]
    until: datetime


def requeue_of_dead_workers(
    c: Connection,
    dead_worker_ids: Collection[str],
    *,
    max_lost_attempts: int,
    now: datetime,
    limit: int = 500,
) -> Recovered:
    """The jobs of dead workers, given back to the queue or, after too many lost attempts, failed with `worker_lost`.

    dead_worker_ids: workers that the caller's own clock found dead; those marked DEAD and those without a row are
                     dead as well
    """
    lost = select(*attempts.COLUMNS, _job.c.lost_attempts).where(IS_RUNNING, _has_dead_worker(dead_worker_ids))
    rows = c.execute(lost.limit(limit).with_for_update(of=_job)).all()
    last = [row.id for row in rows if row.lost_attempts + 1 >= max_lost_attempts]
    again = [row for row in rows if row.lost_attempts + 1 < max_lost_attempts]
    failed = ending.end(c, _fail_lost(last), Outcome(failure=WORKER_LOST), now) if last else []
    return Recovered(tickets=_requeue_lost(c, again, now) if again else [], failed=failed)


def _fail_lost(job_ids: Sequence[str]) -> Update:
    failing = ending.ending(JobStatus.FAILED, _job.c.id.in_(job_ids), IS_RUNNING)
    return failing.values(lost_attempts=_job.c.lost_attempts + 1)


def _requeue_lost(c: Connection, rows: Sequence[Row[*tuple[Any, ...]]], now: datetime) -> list[Ticket]:
    requeueing = (
        update(_job)
        .where(_job.c.id.in_([row.id for row in rows]), IS_RUNNING)
        .values(
            status=JobStatus.QUEUED,
            lost_attempts=_job.c.lost_attempts + 1,
            worker_id=None,
            sent_at=DatabaseNow(),
        )
        .returning(*_TICKET)
    )
    attempts.insert_ended(c, rows, attempts.WORKER_LOST, now)
    return _tickets(c.execute(requeueing).all())


def _has_dead_worker(dead_worker_ids: Collection[str]) -> ColumnElement[bool]:
    is_alive = exists().where(_worker.c.id == _job.c.worker_id, _worker.c.status != WorkerStatus.DEAD)
    return or_(_job.c.worker_id.in_(dead_worker_ids), ~is_alive)


def database_now(c: Connection) -> datetime:
    """Now, by the database's clock, which all processes share: the clocks of their machines may differ."""
    now = c.execute(select(DatabaseNow())).scalar_one()
    assert isinstance(now, datetime)
    return now


def list_queues(c: Connection) -> list[tuple[str, PriorityQueue]]:
    """(model, priority queue) of every queue with queued jobs."""
    query = select(_count.c.served_model, _count.c.priority_queue).group_by(
        _count.c.served_model, _count.c.priority_queue
    )
    return [(row.served_model, row.priority_queue) for row in c.execute(query.having(func.sum(_count.c.num_jobs) > 0))]


def list_lost_tickets(
    c: Connection, model: str, priority_queue: PriorityQueue, before: datetime, limit: int = 500
) -> list[Ticket]:
    """The queued jobs whose newest ticket was sent before `before`, oldest first; of a continuation the next one only.

    before: when the oldest ticket that still waits in this queue was sent (now, if none does), less some slack; by the
            database's clock, as `database_now` returns it
    """
    query = (
        select(*_TICKET)
        .where(
            _IS_QUEUED, _job.c.served_model == model, _job.c.priority_queue == priority_queue, _job.c.sent_at < before
        )
        .where(IS_NEXT)
    )
    return _tickets(c.execute(query.order_by(_job.c.sent_at).limit(limit)).all())


def mark_sent(c: Connection, job_ids: Sequence[str]) -> None:
    """Note that these jobs get a new ticket now."""
    statement = update(_job).where(_job.c.id == bindparam("job_id"), _IS_QUEUED).values(sent_at=DatabaseNow())
    if job_ids:
        c.execute(statement, [{"job_id": job_id} for job_id in job_ids])


def move_to_front(c: Connection, job_ids: Collection[str]) -> list[Ticket]:
    """Those of these jobs that were in the back queue and are in the front queue now; each needs a ticket there.

    The old ticket stays in its queue: the first of both claims the job, and the other finds it claimed.
    """
    moving = update(_job).where(_job.c.id.in_(job_ids), _IS_QUEUED, _job.c.priority_queue == PriorityQueue.BACK)
    moving = moving.values(priority_queue=PriorityQueue.FRONT, sent_at=DatabaseNow())
    return _tickets(c.execute(moving.returning(*_TICKET)).all())


def list_ended(
    c: Connection, after: datetime, before: datetime, *, retentions_s: Collection[int], limit: int = 500
) -> Ended:
    """The jobs that ended after `after` and until `before`, oldest first.

    A page holds all jobs that ended at the moment of its last one, however many they are, so that the next page can go
    on after that moment.

    retentions_s: how long jobs are kept in this platform; with them the index on `erase_at` finds the jobs
    """
    # SQLite computes `erase_at` to the millisecond only.
    slack = timedelta(seconds=1)
    kept = [timedelta(seconds=seconds) for seconds in retentions_s]
    is_near = or_(*(_job.c.erase_at.between(after + time - slack, before + time + slack) for time in kept))
    is_between = and_(_job.c.ended_at > after, _job.c.ended_at <= before)
    # Two queries, since each has an index of its own: jobs of batches have no `erase_at` yet.
    queries = [select(_job.c.id, _job.c.ended_at).where(one, is_between) for one in (is_near, _IS_KEPT)]
    order = _job.c.ended_at, _job.c.id
    rows = [row for query in queries for row in c.execute(query.order_by(*order).limit(limit))]
    rows = sorted(rows, key=lambda row: (row.ended_at, row.id))[:limit]
    job_ids = [row.id for row in rows]
    if len(rows) < limit:
        return Ended(job_ids=job_ids, until=before)
    last = rows[-1]
    tied = [query.where(_job.c.ended_at == last.ended_at, _job.c.id > last.id) for query in queries]
    job_ids += sorted(row.id for query in tied for row in c.execute(query))
    return Ended(job_ids=job_ids, until=last.ended_at)


def list_unsettled(c: Connection, limit: int = 500) -> list[str]:
    """Ids of ended jobs whose outcome nobody has stored yet, those that ended first; their workers may be about to."""
    is_unsettled: ColumnElement[bool] = literal_column("ended_at IS NOT NULL AND NOT has_result")
    return list(c.execute(select(_job.c.id).where(is_unsettled).order_by(_job.c.ended_at).limit(limit)).scalars())


def list_erasable(c: Connection, now: datetime, limit: int = 500, *, max_bytes: int = 2_000_000) -> list[str]:
    """Ids of ended jobs whose time is over, the longest overdue first.

    max_bytes: about so many bytes of payload they have together, or one has more. SQLite follows every page of a long
               value to free it, 7 ms for a megabyte, in which nobody else writes
    """
    query = select(_job.c.id).where(_job.c.erase_at.is_not(None), _job.c.erase_at <= now)
    job_ids = list(c.execute(query.order_by(_job.c.erase_at).limit(limit)).scalars())
    num_bytes = records.payload_bytes_of(c, job_ids)
    sums = accumulate(num_bytes.get(job_id, 0) for job_id in job_ids)
    return [
        job_id
        for index, (job_id, total) in enumerate(zip(job_ids, sums, strict=True))
        if not index or total <= max_bytes
    ]


def release_of_batch(c: Connection, batch_id: str, now: datetime, limit: int) -> int:
    """How many ended jobs of a batch, at most `limit`, are from now on kept as long as others that end now."""
    some = select(_job.c.id).where(_job.c.batch_id == batch_id, _IS_KEPT).limit(limit)
    erase_at = SecondsAfter(bindparam("now", now, type_=UtcDateTime), _job.c.retention_s)
    return c.execute(update(_job).where(_job.c.id.in_(some)).values(erase_at=erase_at)).rowcount


def erase_many(c: Connection, job_ids: Collection[str]) -> int:
    """How many of these jobs were erased, their payload and keys with them."""
    return len(erase_where(c, _job.c.id.in_(job_ids)))


def _tickets(rows: Sequence[Row[*tuple[Any, ...]]]) -> list[Ticket]:
    return [Ticket(job_id=row.id, model=row.served_model, priority_queue=row.priority_queue) for row in rows]
