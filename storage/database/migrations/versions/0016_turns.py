"""Jobs know their place in a conversation, of which at most one is open; null in rows of before, which had none."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

_IS_OPEN = sa.text("conversation_id IS NOT NULL AND ended_at IS NULL")


def upgrade() -> None:
    """Add the column and its index."""
    op.add_column("job", sa.Column("conversation_position", sa.BigInteger()))
    op.create_index(
        "ix_job_open_turn", "job", ["conversation_id"], unique=True, sqlite_where=_IS_OPEN, postgresql_where=_IS_OPEN
    )


def downgrade() -> None:
    """Drop both."""
    op.drop_index("ix_job_open_turn", "job")
    op.drop_column("job", "conversation_position")
