"""The order of continuations: jobs of one owner and `continuation_id` start in the order in which they were accepted.

Each starts when those before it have ended. Until then it is queued and cannot be claimed; its ticket is dropped, and
the sweeper sends another one when it is the next.
"""

from sqlalchemy import exists, or_, tuple_
from sqlalchemy.sql.elements import ColumnElement

from storage.database.table_definitions import table_of
from storage.jobs.tables import Job

_job = table_of(Job)
_before = _job.alias("before")
# For jobs without a continuation this is one comparison.
IS_NEXT: ColumnElement[bool] = or_(
    _job.c.continuation_id.is_(None),
    ~exists().where(
        _before.c.owner == _job.c.owner,
        _before.c.continuation_id == _job.c.continuation_id,
        _before.c.ended_at.is_(None),
        tuple_(_before.c.created_at, _before.c.id) < tuple_(_job.c.created_at, _job.c.id),
    ),
)
