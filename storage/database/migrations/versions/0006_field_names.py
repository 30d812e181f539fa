"""Columns named with the field's words: priority queue, manifest."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_RENAMED = (
    ("job", "lane", "priority_queue"),
    ("model", "card", "manifest"),
    ("model", "card_digest", "manifest_digest"),
)


def upgrade() -> None:
    """Rename the columns in place; no row is rewritten."""
    for table, old, new in _RENAMED:
        op.execute(f"ALTER TABLE {table} RENAME COLUMN {old} TO {new}")


def downgrade() -> None:
    """Give the columns their old names."""
    for table, old, new in _RENAMED:
        op.execute(f"ALTER TABLE {table} RENAME COLUMN {new} TO {old}")
