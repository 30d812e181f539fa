"""Jobs may have a continuation id, by which they run one after another; null in rows of before, which had none."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

_IS_OPEN = sa.text("continuation_id IS NOT NULL AND ended_at IS NULL")


def upgrade() -> None:
    """Add the column and its index."""
    op.add_column("job", sa.Column("continuation_id", sa.String()))
    columns = ["owner", "continuation_id", "created_at", "id"]
    op.create_index("ix_job_continuation", "job", columns, sqlite_where=_IS_OPEN, postgresql_where=_IS_OPEN)


def downgrade() -> None:
    """Drop both."""
    op.drop_index("ix_job_continuation", "job")
    op.drop_column("job", "continuation_id")
