"""The order of continuations: jobs of one owner and `continuation_id` start in the order in which they were accepted.

Each starts when those before it have ended. Until then it is queued and cannot be claimed; its ticket is dropped, and
the sweeper sends another one when it is the next.
"""

from sqlalchemy import literal_column
from sqlalchemy.sql.elements import ColumnElement

# For jobs without a continuation one comparison. As text: SQLAlchemy takes 15 us more for a claim with the expression.
IS_NEXT: ColumnElement[bool] = literal_column(
    "(job.continuation_id IS NULL OR NOT EXISTS (SELECT 1 FROM job AS older WHERE older.owner = job.owner"
    " AND older.continuation_id = job.continuation_id AND older.ended_at IS NULL"
    " AND (older.created_at, older.id) < (job.created_at, job.id)))"
)
