"""Idempotent replay: a repeated request finds the job of the first one and attaches to it."""

from collections.abc import Collection, Sequence
from datetime import datetime

import msgspec
from sqlalchemy import Connection, and_, bindparam, exists, insert, or_, select, update

from storage.accounts import idempotency
from storage.accounts.idempotency import KeyedRequest
from storage.contract import JobStatus
from storage.conversations.conversation_items import POSITIONS_OF_TURN
from storage.conversations.tables import Conversation
from storage.database.group_commit import Insert
from storage.database.table_definitions import table_of
from storage.errors import IdempotencyKeyInUse
from storage.jobs.erasing import erase_where
from storage.jobs.tables import Job

_job = table_of(Job)
_conversation = table_of(Conversation)
# A turn behind which others came is not the same request: people say the same words again.
_IS_LAST_TURN = or_(
    _job.c.conversation_id.is_(None),
    exists().where(
        _conversation.c.id == _job.c.conversation_id,
        _conversation.c.next_position == _job.c.conversation_position + POSITIONS_OF_TURN,
    ),
)
# A foreground job that was cancelled before its deadline: its last caller disconnected.
_IS_ABANDONED = and_(
    _job.c.status == JobStatus.CANCELLED,
    ~_job.c.background,
    or_(_job.c.cancel_at.is_(None), _job.c.ended_at < _job.c.cancel_at),
)
_ATTACH = (
    update(_job)
    .where(_job.c.id == bindparam("of_job"), ~_IS_ABANDONED)
    .values(num_attached=_job.c.num_attached + 1)
    .returning(_job.c.num_attached)
)


class Attached(msgspec.Struct, frozen=True, kw_only=True):
    """A job that a request has attached to; `number` counts those attached so far, so that the last one is known."""

    job_id: str
    number: int


def attach(c: Connection, job_id: str) -> int | None:
    """How many requests are attached to the job, this one included; None when it is absent or was abandoned.

    A caller who disconnects before the job's end passes its number to `jobs.cancel`.
    """
    return c.execute(_ATTACH, {"of_job": job_id}).scalar()


def attach_keyed(c: Connection, request: KeyedRequest, now: datetime) -> Attached | None:
    """The job of the request's idempotency key, now attached; None when there is none that can be attached to.

    The key is free then. Raises IdempotencyKeyReused.
    """
    job_id = idempotency.find(c, request, now)
    if job_id is None:
        return None
    number = attach(c, job_id)
    if number is None:
        idempotency.forget(c, [job_id])
        return None
    return Attached(job_id=job_id, number=number)


def attach_retry(c: Connection, owner: str, body_digest: bytes, num_retries: int, since: datetime) -> Attached | None:
    """The newest job of the same request, now attached; None when a new one is to be made.

    num_retries: number of this retry. Several callers may have sent the same request; jobs with fewer attached
                 requests than that come first, so that each caller finds a job of its own.
    since:       the earliest moment at which the first request can have been sent
    """
    query = select(_job.c.id).where(_job.c.body_digest == body_digest, _job.c.owner == owner, _job.c.created_at > since)
    query = query.where(_IS_LAST_TURN)
    query = query.order_by((_job.c.num_attached < num_retries).desc(), _job.c.created_at.desc(), _job.c.id.desc())
    job_id = c.execute(query.limit(1)).scalar()
    if job_id is None:
        return None
    number = attach(c, job_id)
    return None if number is None else Attached(job_id=job_id, number=number)


def insert_keyed(
    c: Connection, rows: Sequence[Insert], request: KeyedRequest, *, now: datetime, expires_at: datetime
) -> Attached | None:
    """None when the job is inserted with its key; otherwise the job of a concurrent request, now attached.

    rows: as `jobs.rows_of`. Raises IdempotencyKeyReused, and IdempotencyKeyInUse where the other's job was abandoned.
    """
    attached = attach_keyed(c, request, now)
    if attached is not None:
        return attached
    if idempotency.take(c, request, str(rows[0][1]["id"]), now=now, expires_at=expires_at):
        for table, values in rows:
            c.execute(insert(table_of(table)), [values])
        return None
    # On PostgreSQL another process can insert the key in between; `take` has waited for its commit.
    attached = attach_keyed(c, request, now)
    if attached is None:
        raise IdempotencyKeyInUse
    return attached


def compensating_delete(c: Connection, job_ids: Collection[str]) -> None:
    """Erase jobs whose insert could not be confirmed in time, except those that a request has attached to since."""
    erase_where(c, _job.c.id.in_(job_ids), _job.c.num_attached == 0)
