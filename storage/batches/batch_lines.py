"""All queries about the lines of batches."""

import hashlib
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, literal, select, tuple_, update
from sqlalchemy.sql.elements import ColumnElement

from storage.batches.batch_states import LineStatus
from storage.batches.tables import BatchLine
from storage.contract import JobKind
from storage.database.bulk_insert import BulkInserts
from storage.database.table_definitions import table_of

_ID_DIGITS = 20
_OPEN = (LineStatus.QUEUED, LineStatus.IN_PROGRESS)
WITHOUT_SUCCESS = (LineStatus.FAILED, LineStatus.EXPIRED, LineStatus.CANCELLED)

_line = table_of(BatchLine)
_ROW = tuple(_line.c)


def job_id_of(kind: JobKind, batch_id: str, line: int, created_at: datetime) -> str:
    """The id of the job that a line becomes: the same in every process, so that no line becomes two.

    created_at: of the batch, so that ids of jobs sort by time as others do
    """
    digest = hashlib.blake2b(f"{batch_id}\0{line}".encode(), digest_size=_ID_DIGITS // 2).hexdigest()
    return f"{kind.prefix}{int(created_at.timestamp() * 1000):012x}{digest}"


def find_known_ids(c: Connection, batch_id: str, custom_ids: Collection[str]) -> set[str]:
    """Those of these ids that lines of the batch have already."""
    query = select(_line.c.custom_id).where(_line.c.batch_id == batch_id, _line.c.custom_id.in_(custom_ids))
    return set(c.execute(query).scalars())


def insert_lines(c: Connection, inserts: BulkInserts, lines: Sequence[BatchLine]) -> None:
    """Insert lines that wait; none of their ids may be known."""
    names = ("batch_id", "line", "custom_id", "position", "model", "offset", "length", "status")
    if lines:
        inserts.execute(c, _line, [{name: getattr(line, name) for name in names} for line in lines])


def copy_without_success(c: Connection, source_id: str, target_id: str, after: int, limit: int) -> list[BatchLine]:
    """The next lines of an ended batch that had no success, as lines of a new batch; at most `limit`.

    after: number of the last line before them
    """
    query = select(*_ROW).where(
        _line.c.batch_id == source_id, _line.c.status.in_(WITHOUT_SUCCESS), _line.c.line > after
    )
    return [
        BatchLine(
            batch_id=target_id,
            line=row.line,
            custom_id=row.custom_id,
            position=row.position,
            model=row.model,
            offset=row.offset,
            length=row.length,
            status=LineStatus.QUEUED,
        )
        for row in c.execute(query.order_by(_line.c.line).limit(limit))
    ]


def count_in_progress(c: Connection, batch_ids: Collection[str]) -> dict[tuple[str, str], int]:
    """Lines that are jobs now, by batch and model."""
    query = select(_line.c.batch_id, _line.c.model, func.count().label("num")).where(
        _line.c.batch_id.in_(batch_ids), _line.c.status == LineStatus.IN_PROGRESS
    )
    rows = c.execute(query.group_by(_line.c.batch_id, _line.c.model))
    return {(row.batch_id, row.model): row.num for row in rows}


def list_next(c: Connection, batch_id: str, model: str, limit: int, *, after: int = -1) -> list[BatchLine]:
    """The next lines of a model that are to become jobs.

    after: their positions are beyond it
    """
    query = select(*_ROW).where(
        _line.c.batch_id == batch_id,
        _line.c.status == LineStatus.QUEUED,
        _line.c.model == model,
        _line.c.position > after,
    )
    return [_record(row) for row in c.execute(query.order_by(_line.c.position).limit(limit))]


def has_open(c: Connection, batch_id: str) -> bool:
    """Whether a line of the batch has not ended."""
    query = select(literal(1)).where(_line.c.batch_id == batch_id, _line.c.status.in_(_OPEN)).limit(1)
    return c.execute(query).first() is not None


def lock_queued(c: Connection, batch_id: str, lines: Collection[int]) -> set[int]:
    """Those of these lines that are no jobs yet, and stay so until the transaction ends."""
    query = select(_line.c.line).where(
        _line.c.batch_id == batch_id, _line.c.line.in_(lines), _line.c.status == LineStatus.QUEUED
    )
    return set(c.execute(query.with_for_update()).scalars())


def put_jobs(c: Connection, batch_id: str, job_id_by_line: Sequence[tuple[int, str]]) -> None:
    """Note the jobs that these lines have become."""
    if job_id_by_line:
        c.execute(_PUT_JOB, [{"of_batch": batch_id, "of_line": line, "job": job} for line, job in job_id_by_line])


def refuse(c: Connection, batch_id: str, line: int, status_code: int | None, error: dict[str, object]) -> None:
    """Note that a line was refused and never became a job.

    status_code: of the answer, None for a fault of ours
    """
    values = {"status": LineStatus.FAILED, "status_code": status_code, "error": error}
    c.execute(update(_line).where(_is_line(batch_id), _line.c.line == line).values(values))


def end_queued(c: Connection, batch_id: str, status: LineStatus, error: dict[str, object], limit: int) -> int:
    """How many lines that are no jobs ended so, at most `limit`."""
    some = select(_line.c.line).where(_is_line(batch_id), _line.c.status == LineStatus.QUEUED).limit(limit)
    ending = update(_line).where(_is_line(batch_id), _line.c.line.in_(some), _line.c.status == LineStatus.QUEUED)
    return c.execute(ending.values(status=status, error=error)).rowcount


def list_jobs(c: Connection, batch_id: str, limit: int) -> list[str]:
    """Ids of jobs of lines in progress."""
    query = select(_line.c.job_id).where(_is_line(batch_id), _line.c.status == LineStatus.IN_PROGRESS).limit(limit)
    return [job_id for job_id in c.execute(query).scalars() if job_id is not None]


def list_lines(
    c: Connection, batch_id: str, *, after: int = 0, limit: int, status: LineStatus | None = None
) -> list[BatchLine]:
    """Lines of a batch in the order of its file.

    after: number of the last line before them
    """
    query = select(*_ROW).where(_is_line(batch_id), _line.c.line > after)
    if status is not None:
        query = query.where(_line.c.status == status)
    return [_record(row) for row in c.execute(query.order_by(_line.c.line).limit(limit))]


def delete_lines(c: Connection, batch_id: str, limit: int) -> int:
    """How many lines of a batch were deleted, at most `limit`."""
    some = select(_line.c.batch_id, _line.c.line).where(_is_line(batch_id)).limit(limit)
    return c.execute(delete(_line).where(tuple_(_line.c.batch_id, _line.c.line).in_(some))).rowcount


def _is_line(batch_id: str) -> ColumnElement[bool]:
    return _line.c.batch_id == batch_id


def _record(row: Any) -> BatchLine:  # Any: a row of all columns
    return BatchLine(**row._mapping)


_PUT_JOB = (
    update(_line)
    .where(_line.c.batch_id == bindparam("of_batch"), _line.c.line == bindparam("of_line"))
    .values(status=LineStatus.IN_PROGRESS, job_id=bindparam("job"))
)
