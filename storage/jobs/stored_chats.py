"""Listing of stored chat completions."""

from collections.abc import Mapping

from sqlalchemy import Connection, exists, func, literal_column
from sqlalchemy.sql.selectable import TableValuedAlias

from storage.contract import JobStatus
from storage.database.table_definitions import table_of
from storage.jobs.records import JobRecord, record_of, select_whole
from storage.jobs.tables import Job

_job = table_of(Job)


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
    query = select_whole().where(literal_column("job.kind = 'chat' AND job.store"), _job.c.owner == owner)
    query = query.where(_job.c.status.in_([JobStatus.COMPLETED, JobStatus.INCOMPLETE]))
    if model is not None:
        query = query.where(_job.c.model == model)
    for key, value in wanted.items():
        pair = _metadata_pairs(c)
        query = query.where(exists().select_from(pair).where(pair.c.key == key, pair.c.value == value))
    if after is not None:
        query = query.where(_job.c.id < after if is_newest_first else _job.c.id > after)
    query = query.order_by(_job.c.id.desc() if is_newest_first else _job.c.id).limit(limit)
    return [record_of(row) for row in c.execute(query)]


def _metadata_pairs(c: Connection) -> TableValuedAlias:
    # Not a JSON path: SQLite's paths cannot name a key that holds a quotation mark.
    each = func.json_each if c.dialect.name == "sqlite" else func.json_each_text
    return each(_job.c.metadata_).table_valued("key", "value")
