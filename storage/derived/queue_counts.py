"""Queue counts: how many jobs are queued by model, priority queue and owner, without reading the jobs."""

import msgspec
from sqlalchemy import Connection, func, select, text

from storage.contract import PriorityQueue
from storage.database.table_definitions import table_of
from storage.derived.tables import QueueCount

_count = table_of(QueueCount)
_KEY = _count.c.served_model, _count.c.priority_queue, _count.c.owner
# Any number, the same in every process: it names our lock among PostgreSQL's advisory locks.
_COMPACTION_LOCK = 7_306_911_206
_COMPACT = """
WITH merged AS (DELETE FROM queue_count RETURNING served_model, priority_queue, owner, num_jobs)
INSERT INTO queue_count (served_model, priority_queue, owner, part, num_jobs)
SELECT served_model, priority_queue, owner, nextval('queue_count_part'), sum(num_jobs)
FROM merged GROUP BY served_model, priority_queue, owner HAVING sum(num_jobs) <> 0
"""


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """How many jobs of one owner are in one priority queue of a model, summed from `num_parts` rows."""

    model: str
    priority_queue: PriorityQueue
    owner: str
    num_jobs: int
    num_parts: int = 1


def count_waiting(c: Connection) -> list[Waiting]:
    """Queued jobs counted by model, priority queue and owner, in no order."""
    num_jobs = func.sum(_count.c.num_jobs)
    query = select(*_KEY, num_jobs.label("num_jobs"), func.count().label("num_parts")).group_by(*_KEY)
    return [
        Waiting(
            model=row.served_model,
            priority_queue=row.priority_queue,
            owner=row.owner,
            num_jobs=int(row.num_jobs),
            num_parts=row.num_parts,
        )
        for row in c.execute(query.having(num_jobs > 0))
    ]


def compact(c: Connection) -> None:
    """Merge the parts of each count on PostgreSQL; nothing where another process does so at the moment."""
    if c.dialect.name != "postgresql":
        return
    lock = {"lock": _COMPACTION_LOCK}
    if c.execute(text("SELECT pg_try_advisory_xact_lock(:lock)"), lock).scalar():
        c.execute(text(_COMPACT))
