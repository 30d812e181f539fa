"""Stored jobs as values: a job's row joined with as much of its payload as a query read, and how it is decoded."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, Select, Text, bindparam, cast, func, literal, select

from storage.contract import (
    End,
    Failure,
    JobHeader,
    JobKind,
    JobStatus,
    PriorityQueue,
    Result,
    Usage,
)
from storage.database.table_definitions import table_of
from storage.embedding_job import AnySpec
from storage.formats import decode_result
from storage.jobs.tables import Job, JobInput, JobResult

# A page of a chain: at most so many jobs with so many bytes of requests, or one larger job.
_PAGE_JOBS = 64
_PAGE_BYTES = 256_000

_job = table_of(Job)
_input = table_of(JobInput)
_result = table_of(JobResult)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """A stored job; columns as in `storage.jobs.tables`. Payload that was not read is None."""

    id: str
    owner: str
    project_id: str | None
    key_id: str | None
    kind: JobKind
    model: str
    served_model: str
    status: JobStatus
    attempt: int
    worker_id: str | None
    background: bool
    store: bool
    metadata_: dict[str, str]
    has_result: bool
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None
    reasoning_tokens: int | None
    lost_attempts: int
    retention_s: int
    created_at: datetime
    started_at: datetime | None
    first_token_at: datetime | None
    ended_at: datetime | None
    sent_at: datetime
    erase_at: datetime | None
    priority_queue: PriorityQueue
    body_digest: bytes | None
    num_attached: int
    expires_at: datetime | None
    cancel_at: datetime | None
    webhook: dict[str, object] | None
    batch_id: str | None
    conversation_id: str | None
    conversation_position: int | None
    continuation_id: str | None
    traceparent: str | None
    failure: dict[str, str] | None
    request: dict[str, object] | None = None
    context: dict[str, object] | None = None
    result_kind: str | None = None
    result_version: int | None = None
    result: bytes | None = None


class NewJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job as its caller asked for it, before it has a row.

    Fields as in `storage.jobs.tables`; served_model is the model itself where it is None.
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
    spec: AnySpec
    created_at: datetime
    body_digest: bytes | None = None
    expires_at: datetime | None = None
    cancel_at: datetime | None = None
    webhook: dict[str, object] | None = None
    parent_id: str | None = None
    chain_bytes: int | None = None
    served_model: str | None = None
    project_id: str | None = None
    key_id: str | None = None
    batch_id: str | None = None
    conversation_id: str | None = None
    conversation_position: int | None = None
    continuation_id: str | None = None
    traceparent: str | None = None


class JobState(msgspec.Struct, frozen=True, kw_only=True):
    """The status of a job; `attempt` is its newest one."""

    job_id: str
    attempt: int
    status: JobStatus
    worker_id: str | None


# Labelled by key, so that a row's mapping has the names of Job's fields ("metadata" is `metadata_`).
_ROW = [column.label(column.key) for column in _job.c]
_RESULT = (_result.c.result_kind, _result.c.result_version, _result.c.result)


def select_summaries() -> Select[*tuple[Any, ...]]:
    """Jobs with their failures and without other payload."""
    return select(*_ROW, _result.c.failure).select_from(_job.outerjoin(_result, _result.c.job_id == _job.c.id))


def select_results() -> Select[*tuple[Any, ...]]:
    """Jobs with their results and without what they were asked."""
    return select_summaries().add_columns(*_RESULT)


def select_whole() -> Select[*tuple[Any, ...]]:
    """Jobs with their requests and results, without specs."""
    return (
        select(*_ROW, _result.c.failure, *_RESULT, _input.c.request, _input.c.context)
        .select_from(_job.outerjoin(_result, _result.c.job_id == _job.c.id))
        .join(_input, _input.c.job_id == _job.c.id)
    )


def list_whole(c: Connection, job_ids: Collection[str]) -> dict[str, JobRecord]:
    """These jobs by id, with their requests and results; absent ones are left out."""
    rows = c.execute(select_whole().where(_job.c.id.in_(job_ids))) if job_ids else ()
    return {row.id: record_of(row) for row in rows}


def payload_bytes_of(c: Connection, job_ids: Collection[str]) -> dict[str, int]:
    """About how many bytes of payload these jobs have: request, spec and result. No long value is read for it."""
    num_bytes = _input.c.chain_bytes, func.length(_input.c.spec), func.length(_result.c.result)
    query = select(_input.c.job_id, *num_bytes).outerjoin(_result, _result.c.job_id == _input.c.job_id)
    rows = c.execute(query.where(_input.c.job_id.in_(job_ids))) if job_ids else ()
    return {job_id: sum(size or 0 for size in sizes) for job_id, *sizes in rows}


def list_result_bytes(c: Connection, job_ids: Collection[str]) -> dict[str, int]:
    """Sizes of the stored results of these jobs, by id; those without one are left out."""
    query = select(_result.c.job_id, func.length(_result.c.result).label("size")).where(
        _result.c.job_id.in_(job_ids), _result.c.result.is_not(None)
    )
    return {row.job_id: row.size for row in c.execute(query)} if job_ids else {}


def record_of(row: Row[*tuple[Any, ...]]) -> JobRecord:
    """The job in a row of one of the queries above."""
    return JobRecord(**row._mapping)


def states_of_rows(rows: Sequence[Row[*tuple[Any, ...]]]) -> list[JobState]:
    """The states in rows of id, attempt, status and worker_id."""
    return [JobState(job_id=row.id, attempt=row.attempt, status=row.status, worker_id=row.worker_id) for row in rows]


def header_of(job: JobRecord) -> JobHeader:
    """What the folds need to know of a job; from a record with its request and context."""
    assert job.request is not None
    assert job.context is not None
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


def end_of(job: JobRecord) -> End | None:
    """How the job ended, as the END entry of its log says it; None while it has not."""
    if not job.status.is_terminal or job.ended_at is None:
        return None
    failure = None if job.failure is None else msgspec.convert(job.failure, Failure)
    return End(status=job.status, usage=usage_of(job), ended_at=int(job.ended_at.timestamp()), failure=failure)


def usage_of(job: JobRecord) -> Usage | None:
    """The tokens of a job; None until a worker reported them."""
    if job.prompt_tokens is None or job.completion_tokens is None:
        return None
    return Usage(
        prompt_tokens=job.prompt_tokens,
        completion_tokens=job.completion_tokens,
        cached_tokens=job.cached_tokens or 0,
        reasoning_tokens=job.reasoning_tokens or 0,
    )


def result_of(job: JobRecord) -> Result:
    """The job's result, from a record that was read with it; empty when none is stored."""
    if job.result is None:
        return Result()
    assert job.result_kind is not None
    assert job.result_version is not None
    return decode_result(job.result_kind, job.result_version, job.result)


class ChainLink(msgspec.Struct, frozen=True, kw_only=True):
    """The context of one job of a chain; the job itself may be erased."""

    job_id: str
    context: dict[str, object]


def chain_bytes_of(c: Connection, job_id: str) -> int:
    """The bytes that a job's chain holds; 0 for an absent one."""
    return int(c.execute(_CHAIN_BYTES, {"of_job": job_id}).scalar() or 0)


def iterate_chain(c: Connection, job_id: str) -> Iterator[ChainLink]:
    """The chain that ends with a job, the newest first: it, the job that it continues, and so on.

    It is read in pages; pages that are not consumed are not read.
    """
    next_id: str | None = job_id
    while next_id is not None:
        rows = c.execute(_CHAIN_PAGE, {"of_job": next_id}).all()
        yield from (ChainLink(job_id=row.job_id, context=row.context) for row in rows)
        next_id = rows[-1].parent_id if rows else None


def _chain_page() -> Select[*tuple[Any, ...]]:
    # A page holds whole jobs; one that would make it too large begins the next page.
    chain_bytes = func.coalesce(_input.c.chain_bytes, 0)
    last = select(_input.c.job_id, _input.c.parent_id, literal(0).label("depth"), chain_bytes.label("whole_bytes"))
    link = last.where(_input.c.job_id == bindparam("of_job")).cte("link", recursive=True)
    before = select(_input.c.job_id, _input.c.parent_id, link.c.depth + 1, link.c.whole_bytes)
    parent = _input.alias("parent")
    bytes_before = select(func.coalesce(parent.c.chain_bytes, 0)).where(parent.c.job_id == _input.c.parent_id)
    page_bytes = link.c.whole_bytes - func.coalesce(bytes_before.scalar_subquery(), 0)
    has_room = (link.c.depth + 1 < _PAGE_JOBS) & (page_bytes <= _PAGE_BYTES)
    link = link.union_all(before.where(_input.c.job_id == link.c.parent_id, has_room))
    contexts = select(_input.c.job_id, _input.c.parent_id, _input.c.context)
    return contexts.join(link, link.c.job_id == _input.c.job_id).order_by(link.c.depth)


_CHAIN_PAGE = _chain_page()
# A row of an earlier version holds its whole chain, and its size is not noted.
_CHAIN_BYTES = select(func.coalesce(_input.c.chain_bytes, func.length(cast(_input.c.context, Text)))).where(
    _input.c.job_id == bindparam("of_job")
)
