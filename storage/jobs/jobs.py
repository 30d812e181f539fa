"""Jobs: inserting, claiming, ending and reading them. Every change of status is one conditional UPDATE."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import (
    Connection,
    LargeBinary,
    Select,
    Update,
    and_,
    bindparam,
    exists,
    literal_column,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.sql.elements import ColumnElement

from storage.contract import Failure, JobKind, JobStatus, Result, Usage
from storage.conversations.conversation_items import NewItem
from storage.database.columns import DatabaseNow
from storage.database.group_commit import Insert
from storage.database.table_definitions import table_of
from storage.embedding_job import AnySpec
from storage.errors import InvalidRequest, JobNotFound
from storage.formats import SPEC_FORMATS, decode_spec, encode_spec
from storage.ids import is_public_id
from storage.jobs import attempts, ending
from storage.jobs.continuations.continuation_order import IS_NEXT
from storage.jobs.ending import Outcome
from storage.jobs.erasing import erase_where
from storage.jobs.records import (
    JobRecord,
    JobState,
    NewJob,
    record_of,
    select_results,
    select_summaries,
    select_whole,
    states_of_rows,
)
from storage.jobs.tables import Job, JobInput
from storage.jobs.transitions import sources_of

_job = table_of(Job)
_input = table_of(JobInput)
# Literals, not parameters: only then does a database see that its partial index answers the question.
IS_RUNNING: ColumnElement[bool] = literal_column("job.status = 'in_progress'")
# A spec up to this size is read by the claim itself; a larger one would hold up everybody's commit.
MAX_CLAIMED_SPEC_BYTES = 64 * 1024


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker gets with a job that is now its own; `attempt` guards all that it writes.

    model:   the model that serves it
    spec:    None where it is larger than MAX_CLAIMED_SPEC_BYTES; `get_spec` reads it outside of the claim's transaction
    is_turn: whether it is of a conversation, to which its end adds items
    """

    attempt: int
    model: str
    spec: AnySpec | None
    owner: str
    is_turn: bool = False


class Cancelled(msgspec.Struct, frozen=True, kw_only=True):
    """What a job was when it was cancelled or erased; `worker_id` is set when it ran."""

    was: JobStatus
    worker_id: str | None
    attempt: int


def rows_of(new: NewJob, retention_s: int) -> tuple[Insert, ...]:
    """The rows of a new queued job, for `Writer.insert`.

    retention_s: how long it is kept after its end; see `StorageSettings.retention_s`
    """
    refuse_nul(new.metadata)
    spec_kind, spec_version, spec = encode_spec(new.spec, is_turn=new.conversation_id is not None)
    row = {
        "id": new.job_id,
        "owner": new.owner,
        "project_id": new.project_id,
        "key_id": new.key_id,
        "kind": new.kind,
        "model": new.model,
        "served_model": new.served_model or new.model,
        "status": JobStatus.QUEUED,
        "attempt": 0,
        "background": new.background,
        "store": new.store,
        "metadata_": new.metadata,
        "has_result": False,
        "lost_attempts": 0,
        "priority_queue": new.spec.priority_queue,
        "retention_s": retention_s,
        "created_at": new.created_at,
        "body_digest": new.body_digest,
        "num_attached": 0,
        "expires_at": new.expires_at,
        "cancel_at": new.cancel_at,
        "webhook": new.webhook,
        "batch_id": new.batch_id,
        "conversation_id": new.conversation_id,
        "conversation_position": new.conversation_position,
        "continuation_id": new.continuation_id,
        "traceparent": new.traceparent,
    }
    payload = {
        "job_id": new.job_id,
        "parent_id": new.parent_id,
        "chain_bytes": new.chain_bytes,
        "spec_kind": spec_kind,
        "spec_version": spec_version,
        "request": new.request,
        "context": new.context,
        "spec": spec,
    }
    return (Job, row), (JobInput, payload)


def refuse_nul(metadata: Mapping[str, str]) -> None:
    """Raise InvalidRequest for metadata with a NUL character, which PostgreSQL cannot compare."""
    if any("\0" in key or "\0" in value for key, value in metadata.items()):
        raise InvalidRequest("metadata must not contain NUL characters", param="metadata")


def find(c: Connection, job_id: str) -> JobRecord | None:
    """The job with its request and result, whoever owns it; None when absent."""
    return _find(c, _FIND, job_id)


def find_summary(c: Connection, job_id: str) -> JobRecord | None:
    """The job without request and result, whoever owns it; None when absent."""
    return _find(c, _FIND_SUMMARY, job_id)


def find_result(c: Connection, job_id: str) -> JobRecord | None:
    """The job with its result and without its request, whoever owns it; None when absent."""
    return _find(c, _FIND_RESULT, job_id)


def get(c: Connection, job_id: str, owner: str) -> JobRecord:
    """The owner's job with its request and result; JobNotFound when absent or another owner's."""
    job = find(c, job_id)
    if job is None or job.owner != owner:
        raise JobNotFound(f"No job with id '{job_id}'.")
    return job


def get_spec(c: Connection, job_id: str) -> AnySpec:
    """What a worker is asked to run; JobNotFound when the job was erased, FormatUnknown as `formats.decode_spec`."""
    row = c.execute(_FIND_SPEC, {"of_job": job_id}).first()
    if row is None:
        raise JobNotFound(f"No job with id '{job_id}'.")
    return decode_spec(row.spec_kind, row.spec_version, row.spec)


def check_kind(c: Connection, job_id: str, owner: str, kind: JobKind) -> None:
    """Return where the owner has a job of this kind and id; JobNotFound elsewhere."""
    query = select(_job.c.kind).where(_job.c.id == job_id, _job.c.owner == owner)
    found = c.execute(query).scalar() if is_public_id(job_id) else None
    if found != kind:
        raise JobNotFound(f"No {kind.value} with id '{job_id}'.")


def list_running_of(c: Connection, worker_id: str) -> list[JobState]:
    """The jobs that are in progress on a worker, as the rows say."""
    query = select(_job.c.id, _job.c.attempt, _job.c.status, _job.c.worker_id)
    return states_of_rows(c.execute(query.where(IS_RUNNING, _job.c.worker_id == worker_id)).all())


def list_states(c: Connection, job_ids: Collection[str]) -> list[JobState]:
    """The states of these jobs, in no order; absent ones are left out."""
    query = select(_job.c.id, _job.c.attempt, _job.c.status, _job.c.worker_id)
    return states_of_rows(c.execute(query.where(_job.c.id.in_(job_ids))).all())


def list_all(
    c: Connection,
    *,
    status: JobStatus | None = None,
    model: str | None = None,
    owner: str | None = None,
    limit: int = 50,
) -> list[JobRecord]:
    """The newest jobs first, for operators, without requests and results."""
    query = select_summaries().order_by(_job.c.created_at.desc(), _job.c.id.desc()).limit(limit)
    for column, value in ((_job.c.status, status), (_job.c.model, model), (_job.c.owner, owner)):
        if value is not None:
            query = query.where(column == value)
    return [record_of(row) for row in c.execute(query)]


def claim(c: Connection, job_id: str, worker_id: str, now: datetime, *, lost_below: int = 2**31 - 1) -> Claim | None:
    """The job, now this worker's, with the next attempt number.

    None when it is not queued, not the next of its continuation, overdue, lost too often, or of an unknown format.

    lost_below: the number of lost attempts from which it is not claimed
    """
    ours = {"of_job": job_id, "by_worker": worker_id, "moment": now, "lost_below": lost_below}
    row = c.execute(_CLAIM, ours).first()
    if row is None:
        return None
    spec = None if row.spec is None else decode_spec(row.spec_kind, row.spec_version, row.spec)
    is_turn = row.conversation_id is not None
    return Claim(attempt=row.attempt, model=row.served_model, spec=spec, owner=row.owner, is_turn=is_turn)


def complete(
    c: Connection,
    job_id: str,
    attempt: int,
    *,
    status: JobStatus,
    result: Result,
    usage: Usage,
    now: datetime,
    first_token_at: datetime | None = None,
    turn: Sequence[NewItem] | None = None,
) -> bool:
    """Whether the job is now completed or incomplete; False when the attempt no longer owns it.

    turn: as in `ending.Outcome`
    """
    outcome = Outcome(result=result, usage=usage, first_token_at=first_token_at, turn=turn)
    return bool(ending.end(c, _COMPLETE[status], outcome, now, _attempt(job_id, attempt)))


def fail(
    c: Connection,
    job_id: str,
    attempt: int,
    failure: Failure,
    result: Result | None,
    usage: Usage | None,
    now: datetime,
    *,
    first_token_at: datetime | None = None,
) -> bool:
    """Whether the running job is now failed; False when the attempt no longer owns it."""
    outcome = Outcome(failure=failure, result=result, usage=usage, first_token_at=first_token_at)
    return bool(ending.end(c, _FAIL, outcome, now, _attempt(job_id, attempt)))


def requeue(c: Connection, job_id: str, attempt: int) -> bool:
    """Whether a draining worker gave its job back; it does not count as lost, and needs a new ticket."""
    rows = c.execute(_FIND_RUNNING, _attempt(job_id, attempt)).all()
    if not rows:
        return False
    c.execute(_REQUEUE, {"of_job": job_id})
    attempts.insert_ended(c, rows, attempts.REQUEUED, rows[0].now)
    return True


def cancel(c: Connection, job_id: str, now: datetime, *, num_attached: int | None = None) -> Cancelled | None:
    """What the job was, now that it is cancelled; None when it had already ended or is absent.

    A running one keeps `worker_id` and `attempt`, by which its worker settles it.

    num_attached: the number that `attaching.attach` returned for a caller who disconnects, 0 for the first request;
                  while a later one is attached, nothing is changed, and None returned
    """
    if not is_public_id(job_id):
        return None
    if num_attached is None:
        ended = ending.end(c, _CANCEL, Outcome(), now, {"of_job": job_id})
    else:
        ended = ending.end(c, _LEAVE, Outcome(), now, {"of_job": job_id, "known": num_attached})
    if not ended:
        return None
    [state] = ended
    # Whatever makes a job queued takes its worker away.
    was = JobStatus.QUEUED if state.worker_id is None else JobStatus.IN_PROGRESS
    return Cancelled(was=was, worker_id=state.worker_id, attempt=state.attempt)


def settle_stopped(c: Connection, job_id: str, attempt: int, result: Result | None, usage: Usage | None) -> bool:
    """Whether the partial result of a job that was ended while it ran is now stored by the attempt that ran it."""
    return ending.settle(c, _SETTLE_STOPPED, _attempt(job_id, attempt), Outcome(result=result, usage=usage))


def settle_orphan(c: Connection, job_id: str, attempt: int, result: Result | None, usage: Usage | None) -> bool:
    """Whether the partial result of an ended job without a worker is now stored, from its log.

    The row's attempt becomes `attempt + 1`, that of the END entry `{attempt + 1}-0`, so that a worker that comes back
    settles nothing.
    """
    return ending.settle(c, _SETTLE_ORPHAN, _attempt(job_id, attempt), Outcome(result=result, usage=usage))


def update_metadata(c: Connection, job_id: str, owner: str, metadata: Mapping[str, str]) -> None:
    """Replace the owner's metadata of a job; JobNotFound as `get`."""
    refuse_nul(metadata)
    statement = update(_job).where(_job.c.id == job_id, _job.c.owner == owner).values(metadata_=dict(metadata))
    if not is_public_id(job_id) or c.execute(statement).rowcount == 0:
        raise JobNotFound(f"No job with id '{job_id}'.")


def erase(c: Connection, job_id: str, owner: str) -> Cancelled:
    """What the job was, now that all of it is gone from the database; JobNotFound as `get`.

    Its log is deleted by `event_log.delete_logs`.
    """
    rows = erase_where(c, _job.c.id == job_id, _job.c.owner == owner) if is_public_id(job_id) else ()
    if not rows:
        raise JobNotFound(f"No job with id '{job_id}'.")
    [row] = rows
    return Cancelled(was=row.status, worker_id=row.worker_id, attempt=row.attempt)


# Statements are built once: SQLAlchemy takes five times as long to build one as SQLite to run it.

_IS_IT = _job.c.id == bindparam("of_job")
_IS_OWN = _job.c.attempt == bindparam("of_attempt")
_IS_IN_PROGRESS = _job.c.status == JobStatus.IN_PROGRESS

_FIND = select_whole().where(_IS_IT)
_FIND_SUMMARY = select_summaries().where(_IS_IT)
_FIND_RESULT = select_results().where(_IS_IT)
_FIND_SPEC = select(_input.c.spec_kind, _input.c.spec_version, _input.c.spec).where(
    _input.c.job_id == bindparam("of_job")
)


def _move(source: JobStatus, target: JobStatus) -> Update:
    """The UPDATE along one legal arrow to a status that is not an end."""
    assert source in sources_of(target), f"{source} -> {target} is no legal change"
    return update(_job).where(_IS_IT, _job.c.status == source).values(status=target)


def _of_input(column: str, condition: str = "") -> str:
    return f"(SELECT i.{column} FROM job_input AS i WHERE i.job_id = job.id{condition})"


_CLAIM = (
    _move(JobStatus.QUEUED, JobStatus.IN_PROGRESS)
    .where(*(or_(at.is_(None), at > DatabaseNow()) for at in (_job.c.expires_at, _job.c.cancel_at)))
    .where(_job.c.lost_attempts < bindparam("lost_below"), IS_NEXT)
    .where(
        exists().where(
            _input.c.job_id == _job.c.id, tuple_(_input.c.spec_kind, _input.c.spec_version).in_(SPEC_FORMATS)
        )
    )
    .values(attempt=_job.c.attempt + 1, worker_id=bindparam("by_worker"), started_at=bindparam("moment"))
    .returning(
        _job.c.attempt,
        _job.c.served_model,
        _job.c.owner,
        _job.c.conversation_id,
        literal_column(_of_input("spec_kind")).label("spec_kind"),
        literal_column(_of_input("spec_version")).label("spec_version"),
        # As text: SQLAlchemy writes no table names in a RETURNING for SQLite.
        literal_column(_of_input("spec", f" AND length(i.spec) <= {MAX_CLAIMED_SPEC_BYTES}"), LargeBinary).label(
            "spec"
        ),
    )
)
_COMPLETE = {
    status: ending.ending(status, _IS_IT, _IS_OWN, _IS_IN_PROGRESS)
    for status in (JobStatus.COMPLETED, JobStatus.INCOMPLETE)
}
_FAIL = ending.ending(JobStatus.FAILED, _IS_IT, _IS_OWN, _IS_IN_PROGRESS)
_FIND_RUNNING = (
    select(*attempts.COLUMNS, DatabaseNow().label("now")).where(_IS_IT, _IS_OWN, _IS_IN_PROGRESS).with_for_update()
)
_REQUEUE = _move(JobStatus.IN_PROGRESS, JobStatus.QUEUED).values(worker_id=None, sent_at=DatabaseNow())
_CANCEL = ending.ending(JobStatus.CANCELLED, _IS_IT)
_LEAVE = ending.ending(JobStatus.CANCELLED, _IS_IT, _job.c.num_attached == bindparam("known"))
# A job that failed without a result was ended from outside.
_IS_BARE_FAILURE = and_(_job.c.status == JobStatus.FAILED, ~_job.c.has_result)
_IS_STOPPED = or_(_job.c.status == JobStatus.CANCELLED, _IS_BARE_FAILURE)
_SETTLE_STOPPED = ending.settling(_IS_IT, _IS_OWN, _IS_STOPPED)
_SETTLE_ORPHAN = ending.settling(
    _IS_IT,
    _IS_OWN,
    _job.c.status.in_([JobStatus.CANCELLED, JobStatus.FAILED]),
    ~_job.c.has_result,
    attempt=_job.c.attempt + 1,
)


def _find(c: Connection, query: Select[*tuple[Any, ...]], job_id: str) -> JobRecord | None:
    row = c.execute(query, {"of_job": job_id}).first() if is_public_id(job_id) else None
    return None if row is None else record_of(row)


def _attempt(job_id: str, attempt: int) -> dict[str, object]:
    return {"of_job": job_id, "of_attempt": attempt}
