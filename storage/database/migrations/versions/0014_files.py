"""Files, their content in chunks, and what still reads them."""

import sqlalchemy as sa
from alembic import op

from storage.database.columns import UtcDateTime

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_INDEXES = (
    ("ix_file_expires_at", "expires_at IS NOT NULL AND deleted_at IS NULL", "expires_at"),
    ("ix_file_unfinished", "finished_at IS NULL AND deleted_at IS NULL", "written_at"),
    ("ix_file_deleted_at", "deleted_at IS NOT NULL", "deleted_at"),
)


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "file",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("purpose", sa.String(), nullable=False),
        sa.Column("filename", sa.String(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("written_at", UtcDateTime(), nullable=False),
        sa.Column("finished_at", UtcDateTime()),
        sa.Column("expires_at", UtcDateTime()),
        sa.Column("deleted_at", UtcDateTime()),
    )
    op.create_index("ix_file_owner", "file", ["owner", "id"])
    for name, condition, column in _INDEXES:
        where = sa.text(condition)
        op.create_index(name, "file", [column], sqlite_where=where, postgresql_where=where)
    op.create_table(
        "file_chunk",
        sa.Column("file_id", sa.String(), primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True),
        sa.Column("data", sa.LargeBinary(), nullable=False),
    )
    op.create_table(
        "file_hold",
        sa.Column("file_id", sa.String(), primary_key=True),
        sa.Column("holder_id", sa.String(), primary_key=True),
    )
    op.create_index("ix_file_hold_holder_id", "file_hold", ["holder_id"])
    if op.get_bind().dialect.name == "postgresql":
        # PostgreSQL would compress each chunk in the transaction that inserts it.
        op.execute("ALTER TABLE file_chunk ALTER COLUMN data SET STORAGE EXTERNAL")


def downgrade() -> None:
    """Drop the tables."""
    for table in ("file_hold", "file_chunk", "file"):
        op.drop_table(table)
