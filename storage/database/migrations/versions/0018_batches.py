"""Batches and their lines; jobs of batches are counted apart from their owner's other queued jobs."""

import sqlalchemy as sa
from alembic import op

from storage.database.columns import UtcDateTime

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create tables and indexes, and replace the triggers that count."""
    op.create_table(
        "batch",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("key_id", sa.String()),
        sa.Column("endpoint", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("completion_window", sa.String(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("input_file_id", sa.String(), nullable=False),
        sa.Column("output_file_id", sa.String()),
        sa.Column("error_file_id", sa.String()),
        sa.Column("retry_of", sa.String()),
        sa.Column("metadata", sa.JSON()),
        sa.Column("models", sa.JSON(), nullable=False),
        sa.Column("errors", sa.JSON()),
        sa.Column("input_bytes", sa.BigInteger(), nullable=False),
        sa.Column("num_lines", sa.Integer(), nullable=False),
        sa.Column("num_completed", sa.Integer()),
        sa.Column("cursor_offset", sa.BigInteger(), nullable=False),
        sa.Column("cursor_line", sa.Integer(), nullable=False),
        sa.Column("output_expires_after_s", sa.Integer()),
        sa.Column("usage", sa.JSON()),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("expires_at", UtcDateTime(), nullable=False),
        *(
            sa.Column(f"{name}_at", UtcDateTime())
            for name in ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")
        ),
        sa.Column("erase_at", UtcDateTime()),
    )
    op.create_index("ix_batch_owner", "batch", ["owner", "id"])
    _create_partial_index("ix_batch_open", "batch", ["priority", "id"], "erase_at IS NULL")
    _create_partial_index("ix_batch_erase_at", "batch", ["erase_at"], "erase_at IS NOT NULL")
    op.create_table(
        "batch_line",
        sa.Column("batch_id", sa.String(), primary_key=True),
        sa.Column("line", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("custom_id", sa.String(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("length", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("job_id", sa.String()),
        sa.Column("status_code", sa.Integer()),
        sa.Column("error", sa.JSON()),
        sa.UniqueConstraint("batch_id", "custom_id", name="uq_batch_line_custom_id"),
    )
    op.create_index("ix_batch_line_next", "batch_line", ["batch_id", "status", "model", "position"])
    _create_partial_index("ix_batch_line_job_id", "batch_line", ["job_id"], "job_id IS NOT NULL")
    _create_partial_index("ix_job_batch_id", "job", ["batch_id", "erase_at"], "batch_id IS NOT NULL")
    _create_partial_index("ix_job_kept", "job", ["ended_at", "id"], "erase_at IS NULL AND ended_at IS NOT NULL")
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    for statement in _SQLITE if is_sqlite else _POSTGRESQL:
        op.execute(sa.text(statement))


def downgrade() -> None:
    """Not possible: the triggers of before would count jobs of batches for their owners."""
    raise NotImplementedError("revision 0018 cannot be undone; restore a backup")


def _create_partial_index(name: str, table: str, columns: list[str], condition: str) -> None:
    op.create_index(name, table, columns, sqlite_where=sa.text(condition), postgresql_where=sa.text(condition))


_KEY = "served_model, priority_queue, owner, part"


def _owner(row: str) -> str:
    # No owner has an empty name.
    return f"CASE WHEN {row}.batch_id IS NULL THEN {row}.owner ELSE '' END"


def _sqlite_change(row: str, num_jobs: int) -> str:
    return (
        f"INSERT INTO queue_count ({_KEY}, num_jobs)"
        f" VALUES ({row}.served_model, {row}.priority_queue, {_owner(row)}, 0, {num_jobs})"
        f" ON CONFLICT ({_KEY}) DO UPDATE SET num_jobs = num_jobs + {num_jobs};"
    )


def _sqlite_drop_zero(row: str) -> str:
    return (
        f"DELETE FROM queue_count WHERE served_model = {row}.served_model AND priority_queue = {row}.priority_queue"
        f" AND owner = {_owner(row)} AND part = 0 AND num_jobs = 0;"
    )


_SQLITE = (
    *(f"DROP TRIGGER queue_count_{name}" for name in ("insert", "leave", "enter", "delete")),
    "CREATE TRIGGER queue_count_insert AFTER INSERT ON job WHEN NEW.status = 'queued'"
    f" BEGIN {_sqlite_change('NEW', 1)} END",
    "CREATE TRIGGER queue_count_leave AFTER UPDATE OF status, served_model, priority_queue, owner ON job"
    f" WHEN OLD.status = 'queued' BEGIN {_sqlite_change('OLD', -1)} {_sqlite_drop_zero('OLD')} END",
    "CREATE TRIGGER queue_count_enter AFTER UPDATE OF status, served_model, priority_queue, owner ON job"
    f" WHEN NEW.status = 'queued' BEGIN {_sqlite_change('NEW', 1)} {_sqlite_drop_zero('NEW')} END",
    "CREATE TRIGGER queue_count_delete AFTER DELETE ON job WHEN OLD.status = 'queued'"
    f" BEGIN {_sqlite_change('OLD', -1)} {_sqlite_drop_zero('OLD')} END",
)
_POSTGRESQL = (
    f"""
    CREATE OR REPLACE FUNCTION queue_count_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP <> 'INSERT' AND OLD.status = 'queued' THEN
            INSERT INTO queue_count ({_KEY}, num_jobs)
            VALUES (OLD.served_model, OLD.priority_queue, {_owner("OLD")}, nextval('queue_count_part'), -1);
        END IF;
        IF TG_OP <> 'DELETE' AND NEW.status = 'queued' THEN
            INSERT INTO queue_count ({_KEY}, num_jobs)
            VALUES (NEW.served_model, NEW.priority_queue, {_owner("NEW")}, nextval('queue_count_part'), 1);
        END IF;
        RETURN NULL;
    END $$
    """,
)
