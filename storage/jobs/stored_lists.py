"""Listing of stored chat completions."""

from collections.abc import Mapping

from sqlalchemy import Connection, FromClause, and_, exists, func, literal_column, select
from sqlalchemy.sql.elements import ColumnElement

from storage.contract import JobStatus
from storage.database.table_definitions import table_of
from storage.derived.tables import ChatMetadata
from storage.jobs.records import JobRecord, record_of, select_whole
from storage.jobs.tables import Job

_job = table_of(Job)
_pair = table_of(ChatMetadata)
# Up to so many chats of each pair are counted to find the rarest pair of a filter.
_MAX_COUNTED = 1000


def list_stored(
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
    wanted = metadata or {}
    if any("\0" in text for text in (model or "", after or "", *wanted, *wanted.values())):
        return []
    # A filtered page begins at the pairs. Without this SQLite, which has no statistics, begins at the owner's chats.
    job_owner: ColumnElement[str] = _job.c.owner.concat("") if wanted else _job.c.owner
    query = select_whole().where(literal_column("job.kind = 'chat' AND job.store"), job_owner == owner)
    query = query.where(_job.c.status.in_([JobStatus.COMPLETED, JobStatus.INCOMPLETE]))
    if model is not None:
        query = query.where(_job.c.model == model)
    job_id: ColumnElement[str] = _job.c.id
    for number, pair in enumerate(_rarest_first(c, owner, wanted)):
        if number == 0:
            # The pairs of one key and value are in the order of ids: the page is read from them, without a sort.
            job_id = _pair.c.job_id
            query = query.where(_has_pair(_pair, owner, pair), _job.c.id == job_id)
        else:
            other = _pair.alias()
            query = query.where(exists().where(_has_pair(other, owner, pair), other.c.job_id == job_id))
    if after is not None:
        query = query.where(job_id < after if is_newest_first else job_id > after)
    query = query.order_by(job_id.desc() if is_newest_first else job_id).limit(limit)
    return [record_of(row) for row in c.execute(query)]


def _rarest_first(c: Connection, owner: str, wanted: Mapping[str, str]) -> list[tuple[str, str]]:
    """The pairs by the number of chats that have them, counted up to a bound; a single pair is not counted."""
    pairs = list(wanted.items())
    if len(pairs) < 2:
        return pairs

    def num_chats(pair: tuple[str, str]) -> int:
        some = select(_pair.c.job_id).where(_has_pair(_pair, owner, pair)).limit(_MAX_COUNTED).subquery()
        return c.execute(select(func.count()).select_from(some)).scalar_one()

    return sorted(pairs, key=num_chats)


def _has_pair(table: FromClause, owner: str, pair: tuple[str, str]) -> ColumnElement[bool]:
    key, value = pair
    return and_(table.c.owner == owner, table.c.key == key, table.c.value == value)
