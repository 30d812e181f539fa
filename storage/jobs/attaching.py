"""How a call finds the job that an earlier try of it made, and joins those who wait for it."""

from collections.abc import Collection, Mapping
from datetime import datetime

import msgspec
from sqlalchemy import Connection, and_, bindparam, delete, insert, or_, select, update

from storage.accounts import idempotency
from storage.accounts.idempotency import KeyedRequest
from storage.contract import JobStatus
from storage.database.table_definitions import table_of
from storage.errors import IdempotencyKeyInUse
from storage.jobs.tables import Job

_job = table_of(Job)


# A cancellation says that nobody waits, but for a background job's, which is by its id, and one at a deadline.
_IS_GIVEN_UP = and_(
    _job.c.status == JobStatus.CANCELLED,
    ~_job.c.background,
    or_(_job.c.cancel_at.is_(None), _job.c.ended_at < _job.c.cancel_at),
)
_ATTACH = (
    update(_job)
    .where(_job.c.id == bindparam("of_job"), ~_IS_GIVEN_UP)
    .values(num_attached=_job.c.num_attached + 1)
    .returning(_job.c.num_attached)
)


class Attached(msgspec.Struct, frozen=True, kw_only=True):
    """A job that a call has joined; `number` of them have by now, by which the last one is known."""

    job_id: str
    number: int


def attach(c: Connection, job_id: str) -> int | None:
    """How many callers have joined the job, now that this one has; None when it is absent or was given up.

    A caller who leaves before the job's end shows its number to `jobs.cancel`.
    """
    return c.execute(_ATTACH, {"of_job": job_id}).scalar()


def attach_keyed(c: Connection, call: KeyedRequest, now: datetime) -> Attached | None:
    """The job that was made under the call's key, joined; None when there is none, or none that can be joined.

    The key is free then. Raises IdempotencyKeyReused.
    """
    job_id = idempotency.find(c, call, now)
    if job_id is None:
        return None
    number = attach(c, job_id)
    if number is None:
        idempotency.forget(c, [job_id])
        return None
    return Attached(job_id=job_id, number=number)


def attach_retry(c: Connection, owner: str, body_digest: bytes, num_retries: int, since: datetime) -> Attached | None:
    """The newest job that an earlier try of the same call made, joined; None when a new one is to be made.

    num_retries: which try this is. Of jobs made by several calls that are alike, those whose own callers are not back
                 yet come first, so that each call finds one of its own again.
    since:       when the first try cannot have been before
    """
    query = select(_job.c.id).where(_job.c.body_digest == body_digest, _job.c.owner == owner, _job.c.created_at > since)
    query = query.order_by((_job.c.num_attached < num_retries).desc(), _job.c.created_at.desc(), _job.c.id.desc())
    job_id = c.execute(query.limit(1)).scalar()
    if job_id is None:
        return None
    number = attach(c, job_id)
    return None if number is None else Attached(job_id=job_id, number=number)


def insert_keyed(
    c: Connection, row: Mapping[str, object], call: KeyedRequest, *, now: datetime, expires_at: datetime
) -> Attached | None:
    """None when the job is written, its key with it; the job of a call that was faster, joined.

    row: as `jobs.row_of`. Raises IdempotencyKeyReused, and IdempotencyKeyInUse where the faster one gave up just now.
    """
    attached = attach_keyed(c, call, now)
    if attached is not None:
        return attached
    if idempotency.take(c, call, str(row["id"]), now=now, expires_at=expires_at):
        c.execute(insert(_job), [row])
        return None
    # On PostgreSQL another process can be in between; `take` has waited for its commit.
    attached = attach_keyed(c, call, now)
    if attached is None:
        raise IdempotencyKeyInUse
    return attached


def compensating_delete(c: Connection, job_ids: Collection[str]) -> None:
    """Erase jobs of whose writing nobody could be told in time, but for those that somebody found and joined since."""
    erasing = delete(_job).where(_job.c.id.in_(job_ids), _job.c.num_attached == 0).returning(_job.c.id)
    idempotency.forget(c, c.execute(erasing).scalars().all())
