"""Queries about jobs. Every change of status is one conditional UPDATE, named by its cause."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, Update, and_, bindparam, delete, literal_column, or_, select, update
from sqlalchemy.sql.elements import ColumnElement

from storage.accounts import idempotency
from storage.contract import End, Failure, JobHeader, JobKind, JobSpec, JobStatus, Result, Usage
from storage.database.columns import DatabaseNow, SecondsAfter, UtcDateTime
from storage.database.table_definitions import table_of
from storage.errors import InvalidRequest, JobNotFound
from storage.ids import is_public_id
from storage.jobs.tables import Job
from storage.jobs.transitions import sources_of
from storage.webhooks.events import IS_SUBSCRIBED, tell

_job = table_of(Job)
# Labelled by key, so that a row's mapping has the names of Job's fields ("metadata" is `metadata_`).
_ALL = [column.label(column.key) for column in _job.c]
ALL_BUT_SPEC = [column for column in _ALL if column.key != "spec"]
_SUMMARY = [column for column in ALL_BUT_SPEC if column.key not in ("request", "context", "result")]
_FIND = select(*_ALL).where(_job.c.id == bindparam("of_job"))
# Literals, not parameters: only then does a database see that its partial index answers the question.
IS_RUNNING: ColumnElement[bool] = literal_column("status = 'in_progress'")

_encoder = msgspec.msgpack.Encoder()
_spec_decoder = msgspec.msgpack.Decoder(JobSpec)
_result_decoder = msgspec.msgpack.Decoder(Result)


class NewJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job as its caller asked for it, before it has a row.

    body_digest, expires_at, cancel_at, webhook: as in `storage.jobs.tables.Job`
    """

    job_id: str
    owner: str
    kind: JobKind
    model: str
    background: bool
    store: bool
    request: dict[str, object]
    context: dict[str, object]
    metadata: dict[str, str]
    spec: JobSpec
    created_at: datetime
    body_digest: bytes | None = None
    expires_at: datetime | None = None
    cancel_at: datetime | None = None
    webhook: dict[str, object] | None = None


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker gets with a job that is now its own; `attempt` guards all that it writes."""

    attempt: int
    model: str
    spec: JobSpec
    owner: str


class Cancelled(msgspec.Struct, frozen=True, kw_only=True):
    """What a job was when it was cancelled or erased; `worker_id` is set when it ran."""

    was: JobStatus
    worker_id: str | None
    attempt: int


class JobState(msgspec.Struct, frozen=True, kw_only=True):
    """Where a job stands; `attempt` is its newest one."""

    job_id: str
    attempt: int
    status: JobStatus
    worker_id: str | None


def row_of(new: NewJob, retention_s: int) -> dict[str, object]:
    """The column values of a new queued job, for `Writer.insert(Job, ...)`.

    retention_s: how long it is kept after its end; see `StorageSettings.retention_s`
    """
    refuse_nul(new.metadata)
    return {
        "id": new.job_id,
        "owner": new.owner,
        "kind": new.kind,
        "model": new.model,
        "status": JobStatus.QUEUED,
        "attempt": 0,
        "background": new.background,
        "store": new.store,
        "request": new.request,
        "context": new.context,
        "metadata_": new.metadata,
        "spec": _encoder.encode(new.spec),
        "lost_attempts": 0,
        "priority_queue": new.spec.priority_queue,
        "retention_s": retention_s,
        "created_at": new.created_at,
        "body_digest": new.body_digest,
        "expires_at": new.expires_at,
        "cancel_at": new.cancel_at,
        "webhook": new.webhook,
    }


def refuse_nul(metadata: Mapping[str, str]) -> None:
    """Raise InvalidRequest for metadata with a NUL character, which PostgreSQL cannot compare."""
    if any("\0" in key or "\0" in value for key, value in metadata.items()):
        raise InvalidRequest("metadata must not contain NUL characters", param="metadata")


def header_of(job: Job) -> JobHeader:
    """What the folds need to know of a job; from a row with its request and context."""
    return JobHeader(
        job_id=job.id,
        kind=job.kind,
        model=job.model,
        created_at=int(job.created_at.timestamp()),
        request=job.request,
        context=job.context,
        background=job.background,
        status=job.status,
    )


def end_of(job: Job) -> End | None:
    """How the job ended, as its log would tell; None while it has not."""
    if not job.status.is_terminal or job.ended_at is None:
        return None
    failure = None if job.failure is None else msgspec.convert(job.failure, Failure)
    return End(status=job.status, usage=usage_of(job), ended_at=int(job.ended_at.timestamp()), failure=failure)


def usage_of(job: Job) -> Usage | None:
    """The tokens of a job; None until a worker reported them."""
    if job.prompt_tokens is None or job.completion_tokens is None:
        return None
    return Usage(
        prompt_tokens=job.prompt_tokens,
        completion_tokens=job.completion_tokens,
        cached_tokens=job.cached_tokens or 0,
    )


def result_of(job: Job) -> Result:
    """Everything that came of the job; empty when nothing is stored."""
    return Result() if job.result is None else _result_decoder.decode(job.result)


def spec_of(job: Job) -> JobSpec:
    """What the worker was asked to run."""
    return _spec_decoder.decode(job.spec)


def find(c: Connection, job_id: str) -> Job | None:
    """The whole row, whoever owns it; None when absent."""
    if not is_public_id(job_id):
        return None
    row = c.execute(_FIND, {"of_job": job_id}).first()
    return None if row is None else Job(**row._mapping)


def get(c: Connection, job_id: str, owner: str) -> Job:
    """The owner's job, the whole row; JobNotFound when absent or another owner's."""
    job = find(c, job_id)
    if job is None or job.owner != owner:
        raise JobNotFound(f"No job with id '{job_id}'.")
    return job


def list_running_of(c: Connection, worker_id: str) -> list[JobState]:
    """The jobs that are in progress on a worker, as the rows say."""
    query = select(_job.c.id, _job.c.attempt, _job.c.status, _job.c.worker_id)
    return states_of_rows(c.execute(query.where(IS_RUNNING, _job.c.worker_id == worker_id)).all())


def list_states(c: Connection, job_ids: Collection[str]) -> list[JobState]:
    """Where each of these jobs stands, in no order; absent ones are left out."""
    query = select(_job.c.id, _job.c.attempt, _job.c.status, _job.c.worker_id)
    return states_of_rows(c.execute(query.where(_job.c.id.in_(job_ids))).all())


def list_all(
    c: Connection,
    *,
    status: JobStatus | None = None,
    model: str | None = None,
    owner: str | None = None,
    limit: int = 50,
) -> list[Job]:
    """The newest jobs first, for operators; rows without `request`, `context`, `spec` and `result`."""
    query = select(*_SUMMARY).order_by(_job.c.created_at.desc(), _job.c.id.desc()).limit(limit)
    if status is not None:
        query = query.where(_job.c.status == status)
    if model is not None:
        query = query.where(_job.c.model == model)
    if owner is not None:
        query = query.where(_job.c.owner == owner)
    return [Job(**row._mapping) for row in c.execute(query)]


def claim(c: Connection, job_id: str, worker_id: str, now: datetime, *, lost_below: int = 2**31 - 1) -> Claim | None:
    """The job, now this worker's, with the next attempt number; None when it is not queued, overdue or too often lost.

    lost_below: the number of lost attempts from which it is not claimed
    """
    ours = {"of_job": job_id, "by_worker": worker_id, "moment": now, "lost_below": lost_below}
    row = c.execute(_CLAIM, ours).first()
    if row is None:
        return None
    return Claim(attempt=row.attempt, model=row.model, spec=_spec_decoder.decode(row.spec), owner=row.owner)


def complete(
    c: Connection, job_id: str, attempt: int, *, status: JobStatus, result: Result, usage: Usage, now: datetime
) -> bool:
    """Whether the job is now completed or incomplete; False when the attempt no longer owns it."""
    parameters = _attempt(job_id, attempt) | _outcome(result, usage) | {"moment": now}
    return tell(c, c.execute(_COMPLETE[status], parameters).first(), job_id, status, now)


def fail(
    c: Connection,
    job_id: str,
    attempt: int,
    failure: Failure,
    result: Result | None,
    usage: Usage | None,
    now: datetime,
) -> bool:
    """Whether the running job is now failed; False when the attempt no longer owns it."""
    reason = {"moment": now, "reason": msgspec.to_builtins(failure)}
    parameters = _attempt(job_id, attempt) | _outcome(result, usage) | reason
    return tell(c, c.execute(_FAIL, parameters).first(), job_id, JobStatus.FAILED, now)


def requeue(c: Connection, job_id: str, attempt: int) -> bool:
    """Whether a draining worker gave its job back; it does not count as lost, and needs a new ticket."""
    return _is_done(c, _REQUEUE, job_id, attempt, {})


def cancel(c: Connection, job_id: str, now: datetime, *, num_attached: int | None = None) -> Cancelled | None:
    """What the job was, now that it is cancelled; None when it had already ended or is absent.

    A running one keeps `worker_id` and `attempt`, by which its worker settles it.

    num_attached: the number that `attaching.attach` told a caller who leaves, 0 for who made the job; when somebody
                  joined later, that one decides: nothing is changed, and None returned
    """
    if not is_public_id(job_id):
        return None
    if num_attached is None:
        row = c.execute(_CANCEL, {"of_job": job_id, "moment": now}).first()
    else:
        row = c.execute(_LEAVE, {"of_job": job_id, "moment": now, "known": num_attached}).first()
    if row is None:
        return None
    tell(c, row, job_id, JobStatus.CANCELLED, now)
    # Whatever makes a job queued takes its worker away.
    was = JobStatus.QUEUED if row.worker_id is None else JobStatus.IN_PROGRESS
    return Cancelled(was=was, worker_id=row.worker_id, attempt=row.attempt)


def settle_stopped(c: Connection, job_id: str, attempt: int, result: Result | None, usage: Usage | None) -> bool:
    """Whether the partial outcome of a job that was ended while it ran is now stored by the attempt that ran it."""
    return _is_done(c, _SETTLE_STOPPED, job_id, attempt, _outcome(result, usage))


def settle_orphan(c: Connection, job_id: str, attempt: int, result: Result | None, usage: Usage | None) -> bool:
    """Whether the partial outcome of an ended job without a worker is now stored, from its log.

    The row's attempt becomes `attempt + 1`, that of the END entry `{attempt + 1}-0`, so that a worker that comes back
    settles nothing.
    """
    return _is_done(c, _SETTLE_ORPHAN, job_id, attempt, _outcome(result, usage))


# Statements are built once: SQLAlchemy takes five times as long to build one as SQLite to run it.
# Their parameters are of_job, of_attempt, moment, and those of `_outcome`.

_IS_IT = _job.c.id == bindparam("of_job")
_IS_OWN = _job.c.attempt == bindparam("of_attempt")
_OUTCOME: dict[str, object] = {name: bindparam(f"outcome_{name}") for name in ("result", *Usage.__struct_fields__)}
ENDING = {
    "ended_at": bindparam("moment", type_=UtcDateTime),
    "erase_at": SecondsAfter(bindparam("moment", type_=UtcDateTime), _job.c.retention_s),
}


def _move(source: JobStatus, target: JobStatus) -> Update:
    """The UPDATE along one legal arrow."""
    assert source in sources_of(target), f"{source} -> {target} is no legal change"
    return update(_job).where(_IS_IT, _job.c.status == source).values(status=target)


_CLAIM = (
    _move(JobStatus.QUEUED, JobStatus.IN_PROGRESS)
    .where(*(or_(at.is_(None), at > DatabaseNow()) for at in (_job.c.expires_at, _job.c.cancel_at)))
    .where(_job.c.lost_attempts < bindparam("lost_below"))
    .values(attempt=_job.c.attempt + 1, worker_id=bindparam("by_worker"), started_at=bindparam("moment"))
    .returning(_job.c.attempt, _job.c.model, _job.c.spec, _job.c.owner)
)
_COMPLETE = {
    status: _move(JobStatus.IN_PROGRESS, status).where(_IS_OWN).values(_OUTCOME | ENDING).returning(IS_SUBSCRIBED)
    for status in (JobStatus.COMPLETED, JobStatus.INCOMPLETE)
}
_FAIL = (
    _move(JobStatus.IN_PROGRESS, JobStatus.FAILED)
    .where(_IS_OWN)
    .values(_OUTCOME | ENDING | {"failure": bindparam("reason")})
    .returning(IS_SUBSCRIBED)
)
_REQUEUE = _move(JobStatus.IN_PROGRESS, JobStatus.QUEUED).where(_IS_OWN).values(worker_id=None, sent_at=DatabaseNow())
_CANCEL = (
    update(_job)
    .where(_IS_IT, _job.c.status.in_(sources_of(JobStatus.CANCELLED)))
    .values({"status": JobStatus.CANCELLED} | ENDING)
    .returning(_job.c.worker_id, _job.c.attempt, IS_SUBSCRIBED)
)
_LEAVE = _CANCEL.where(_job.c.num_attached == bindparam("known"))
# A job that failed without a result was ended from outside.
_IS_BARE_FAILURE = and_(_job.c.status == JobStatus.FAILED, _job.c.result.is_(None))
_IS_STOPPED = or_(_job.c.status == JobStatus.CANCELLED, _IS_BARE_FAILURE)
_SETTLE_STOPPED = update(_job).where(_IS_IT, _IS_OWN, _IS_STOPPED).values(_OUTCOME)
_SETTLE_ORPHAN = (
    update(_job)
    .where(_IS_IT, _IS_OWN, _job.c.status.in_([JobStatus.CANCELLED, JobStatus.FAILED]), _job.c.result.is_(None))
    .values(_OUTCOME | {"attempt": _job.c.attempt + 1})
)


def _outcome(result: Result | None, usage: Usage | None) -> dict[str, object]:
    values: dict[str, object] = dict.fromkeys(f"outcome_{name}" for name in _OUTCOME)
    values["outcome_result"] = None if result is None else _encoder.encode(result)
    if usage is not None:
        values |= {f"outcome_{name}": value for name, value in msgspec.structs.asdict(usage).items()}
    return values


def _attempt(job_id: str, attempt: int) -> dict[str, object]:
    return {"of_job": job_id, "of_attempt": attempt}


def _is_done(c: Connection, statement: Update, job_id: str, attempt: int, parameters: dict[str, object]) -> bool:
    return c.execute(statement, _attempt(job_id, attempt) | parameters).rowcount == 1


def update_metadata(c: Connection, job_id: str, owner: str, metadata: Mapping[str, str]) -> None:
    """Replace the owner's metadata of a job; JobNotFound as `get`."""
    refuse_nul(metadata)
    statement = update(_job).where(_job.c.id == job_id, _job.c.owner == owner).values(metadata_=dict(metadata))
    if not is_public_id(job_id) or c.execute(statement).rowcount == 0:
        raise JobNotFound(f"No job with id '{job_id}'.")


def erase(c: Connection, job_id: str, owner: str) -> Cancelled:
    """What the job was, now that its row and key are gone; JobNotFound as `get`. Its log goes by `log.delete_logs`."""
    erasing = delete(_job).where(_job.c.id == job_id, _job.c.owner == owner)
    statement = erasing.returning(_job.c.status, _job.c.worker_id, _job.c.attempt)
    row = c.execute(statement).first() if is_public_id(job_id) else None
    if row is None:
        raise JobNotFound(f"No job with id '{job_id}'.")
    idempotency.forget(c, [job_id])
    return Cancelled(was=row.status, worker_id=row.worker_id, attempt=row.attempt)


def states_of_rows(rows: Sequence[Row[*tuple[Any, ...]]]) -> list[JobState]:
    """The states in rows of id, attempt, status and worker_id."""
    return [JobState(job_id=row.id, attempt=row.attempt, status=row.status, worker_id=row.worker_id) for row in rows]
