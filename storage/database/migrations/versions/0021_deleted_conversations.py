"""Deleted conversations are marked, and erased bit by bit; none in rows of before is deleted."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

_IS_DELETED = sa.text("deleted_at IS NOT NULL")


def upgrade() -> None:
    """Add the column and its index."""
    op.add_column("conversation", sa.Column("deleted_at", sa.DateTime(timezone=True)))
    op.create_index(
        "ix_conversation_deleted_at",
        "conversation",
        ["deleted_at"],
        sqlite_where=_IS_DELETED,
        postgresql_where=_IS_DELETED,
    )


def downgrade() -> None:
    """Erase what was deleted, which would be seen again, and drop both."""
    deleted = "(SELECT id FROM conversation WHERE deleted_at IS NOT NULL)"
    op.execute(f"DELETE FROM conversation_item WHERE conversation_id IN {deleted}")
    op.execute("DELETE FROM conversation WHERE deleted_at IS NOT NULL")
    op.drop_index("ix_conversation_deleted_at", "conversation")
    op.drop_column("conversation", "deleted_at")
