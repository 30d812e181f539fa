"""Lists of stored chat completions and responses, by age, with filters."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, FromClause, Select, Table, and_, exists, func, literal_column, select
from sqlalchemy.sql.elements import ColumnElement

from storage.contract import JobStatus
from storage.database.table_definitions import table_of
from storage.derived.tables import ChatMetadata, ResponseMetadata
from storage.jobs.records import JobRecord, record_of, select_whole
from storage.jobs.tables import RARE_ENDS, Job

_job = table_of(Job)
_open_job = _job.alias("open_job")
# Up to so many jobs of each pair are counted to find the rarest pair of a filter.
_MAX_COUNTED = 1000


class _List(msgspec.Struct, frozen=True):
    """A list: the condition of its index, and the table of its metadata pairs."""

    condition: str
    pairs: Table


_CHATS = _List("job.kind = 'chat' AND job.store", table_of(ChatMetadata))
_RESPONSES = _List("job.kind = 'response' AND job.store", table_of(ResponseMetadata))


def list_chats(
    c: Connection,
    owner: str,
    *,
    model: str | None = None,
    metadata: Mapping[str, str] | None = None,
    after: str | None = None,
    limit: int = 20,
    is_newest_first: bool = False,
) -> list[JobRecord]:
    """The owner's stored chat completions that have a result, by age.

    metadata: pairs that all must match
    after:    an id; only those behind it in the order are listed
    """
    has_result = _job.c.status.in_([JobStatus.COMPLETED, JobStatus.INCOMPLETE])
    return _list(
        c,
        _CHATS,
        owner,
        has_result,
        model=model,
        metadata=metadata or {},
        after=after,
        limit=limit,
        is_newest_first=is_newest_first,
    )


def list_responses(
    c: Connection,
    owner: str,
    *,
    status: JobStatus | None = None,
    model: str | None = None,
    metadata: Mapping[str, str] | None = None,
    after: str | None = None,
    limit: int = 20,
    is_newest_first: bool = True,
) -> list[JobRecord]:
    """The owner's stored responses of every status, or of one; the other arguments are those of `list_chats`."""
    return _list(
        c,
        _RESPONSES,
        owner,
        *_of_status(owner, status),
        model=model,
        metadata=metadata or {},
        after=after,
        limit=limit,
        is_newest_first=is_newest_first,
    )


def _of_status(owner: str, status: JobStatus | None) -> list[ColumnElement[bool]]:
    """Conditions by which a database finds the few responses of a status among those that are completed."""
    if status is None:
        return []
    if not status.is_terminal:
        # Literals: only then does a database see that the index of queued, or of running jobs answers the question.
        is_open: ColumnElement[bool] = literal_column(f"open_job.status = '{status.value}'")
        return [_job.c.id.in_(select(_open_job.c.id).where(is_open, _open_job.c.owner == owner))]
    of_status = _job.c.status == status
    return [of_status, literal_column(f"job.status IN {RARE_ENDS}")] if status.value in RARE_ENDS else [of_status]


def _list(
    c: Connection,
    wanted: _List,
    owner: str,
    *conditions: ColumnElement[bool],
    model: str | None,
    metadata: Mapping[str, str],
    after: str | None,
    limit: int,
    is_newest_first: bool,
) -> list[JobRecord]:
    if any("\0" in text for text in (model or "", after or "", *metadata, *metadata.values())):
        return []
    # A filtered page begins at the pairs. Without this SQLite, which has no statistics, begins at the owner's jobs.
    job_owner: ColumnElement[str] = _job.c.owner.concat("") if metadata else _job.c.owner
    query = select(_job.c.id).where(literal_column(wanted.condition), job_owner == owner, *conditions)
    if model is not None:
        query = query.where(_job.c.model == model)
    job_id, query = _with_pairs(query, wanted.pairs, owner, _rarest_first(c, wanted.pairs, owner, metadata))
    if after is not None:
        query = query.where(job_id < after if is_newest_first else job_id > after)
    query = query.order_by(job_id.desc() if is_newest_first else job_id).limit(limit)
    return _in_order(c, list(c.execute(query).scalars()))


def _in_order(c: Connection, job_ids: Sequence[str]) -> list[JobRecord]:
    """These jobs, as far as they have not been erased meanwhile.

    Read after the ids of the page: PostgreSQL would merge all payloads before the page with it.
    """
    if not job_ids:
        return []
    records = {row.id: record_of(row) for row in c.execute(select_whole().where(_job.c.id.in_(job_ids)))}
    return [records[job_id] for job_id in job_ids if job_id in records]


def _with_pairs(
    query: Select[*tuple[Any, ...]], table: Table, owner: str, pairs: list[tuple[str, str]]
) -> tuple[ColumnElement[str], Select[*tuple[Any, ...]]]:
    """The column that orders the jobs, and the query for those that have the pairs."""
    if not pairs:
        return _job.c.id, query
    # The pairs of one key and value are in the order of ids: the page is read from them, without a sort.
    job_id: ColumnElement[str] = table.c.job_id
    query = query.where(_has_pair(table, owner, pairs[0]), _job.c.id == job_id)
    for pair in pairs[1:]:
        other = table.alias()
        query = query.where(exists().where(_has_pair(other, owner, pair), other.c.job_id == job_id))
    return job_id, query


def _rarest_first(c: Connection, table: Table, owner: str, wanted: Mapping[str, str]) -> list[tuple[str, str]]:
    """The pairs by the number of jobs that have them, counted up to a bound; a single pair is not counted."""
    pairs = list(wanted.items())
    if len(pairs) < 2:
        return pairs

    def num_jobs(pair: tuple[str, str]) -> int:
        some = select(table.c.job_id).where(_has_pair(table, owner, pair)).limit(_MAX_COUNTED).subquery()
        return c.execute(select(func.count()).select_from(some)).scalar_one()

    return sorted(pairs, key=num_jobs)


def _has_pair(table: FromClause, owner: str, pair: tuple[str, str]) -> ColumnElement[bool]:
    key, value = pair
    return and_(table.c.owner == owner, table.c.key == key, table.c.value == value)
