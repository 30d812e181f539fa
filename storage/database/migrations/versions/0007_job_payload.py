"""Payload of jobs in tables of its own, attempts, and what a job belongs to; the rows are moved in portions.

The old table is kept as `job_0006` until `move` has emptied it; revision 0008 drops it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)
_OLD_INDEXES = (
    "queued",
    "running",
    "stored_chat",
    "erase_at",
    "created_at",
    "expires_at",
    "cancel_at",
    "body_digest",
    "ended_at",
)
# Columns that are copied as they are.
_KEPT = (
    "id, owner, kind, model, status, attempt, worker_id, background, store, metadata, prompt_tokens, completion_tokens, "
    "cached_tokens, lost_attempts, retention_s, created_at, started_at, ended_at, sent_at, erase_at, priority_queue, "
    "body_digest, num_attached, expires_at, cancel_at, webhook"
)


def upgrade() -> None:
    """Set the old table aside and create the new ones."""
    for name in _OLD_INDEXES:
        op.drop_index(f"ix_job_{name}", "job")
    op.rename_table("job", "job_0006")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER INDEX job_pkey RENAME TO job_0006_pkey")
    _create_job()
    op.create_table(
        "job_input",
        sa.Column("job_id", sa.String(), primary_key=True),
        sa.Column("parent_id", sa.String(), sa.ForeignKey("job_input.job_id"), nullable=True),
        sa.Column("chain_bytes", sa.Integer(), nullable=True),
        sa.Column("spec_kind", sa.String(), nullable=False),
        sa.Column("spec_version", sa.Integer(), nullable=False),
        # Before what may be long: SQLite reads a row up to the column that is asked for, and a claim asks for the spec.
        sa.Column("spec", sa.LargeBinary(), nullable=False),
        sa.Column("request", sa.JSON(), nullable=False),
        sa.Column("context", sa.JSON(), nullable=False),
    )
    _create_partial_index("ix_job_input_parent_id", "job_input", ["parent_id"], "parent_id IS NOT NULL")
    op.create_table(
        "job_result",
        sa.Column("job_id", sa.String(), primary_key=True),
        sa.Column("result_kind", sa.String(), nullable=False),
        sa.Column("result_version", sa.Integer(), nullable=False),
        sa.Column("failure", sa.JSON(), nullable=True),
        sa.Column("result", sa.LargeBinary(), nullable=True),
    )
    op.create_table(
        "attempt",
        sa.Column("job_id", sa.String(), primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True),
        sa.Column("worker_id", sa.String(), nullable=True),
        sa.Column("claimed_at", MOMENT, nullable=True),
        sa.Column("first_token_at", MOMENT, nullable=True),
        sa.Column("ended_at", MOMENT, nullable=False),
        sa.Column("outcome", sa.String(), nullable=False),
    )


def move(connection: sa.Connection, limit: int) -> int:
    """How many jobs were moved out of the old table, at most `limit`; 0 when it is empty.

    The caller commits. Whatever is still in the old table has not been moved, so an interrupted upgrade goes on there.
    """
    ids = connection.execute(sa.text("SELECT id FROM job_0006 ORDER BY id LIMIT :limit"), {"limit": limit})
    job_ids = ids.scalars().all()
    if job_ids:
        for statement in _MOVE:
            connection.execute(sa.text(statement), {"last": job_ids[-1]})
    return len(job_ids)


def count_left(connection: sa.Connection) -> int:
    """How many jobs `move` has still to move."""
    return int(connection.execute(sa.text("SELECT count(*) FROM job_0006")).scalar_one())


_MOVE = (
    f"INSERT INTO job ({_KEPT}, served_model, has_result)"
    f" SELECT {_KEPT}, model, result IS NOT NULL FROM job_0006 WHERE id <= :last",
    "INSERT INTO job_input (job_id, spec_kind, spec_version, request, context, spec)"
    " SELECT id, 'generation', 1, request, context, spec FROM job_0006 WHERE id <= :last",
    "INSERT INTO job_result (job_id, result_kind, result_version, failure, result)"
    " SELECT id, 'generation', 1, failure, result FROM job_0006"
    " WHERE id <= :last AND (result IS NOT NULL OR failure IS NOT NULL)",
    "DELETE FROM job_0006 WHERE id <= :last",
)


def downgrade() -> None:
    """Not possible: the payload would have to be joined again."""
    raise NotImplementedError("revision 0007 cannot be undone; restore a backup")


def _create_partial_index(name: str, table: str, columns: list[str], condition: str) -> None:
    where = sa.text(condition)
    op.create_index(name, table, columns, sqlite_where=where, postgresql_where=where)


def _create_job() -> None:
    op.create_table(
        "job",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("project_id", sa.String(), nullable=True),
        sa.Column("key_id", sa.String(), nullable=True),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("served_model", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("worker_id", sa.String(), nullable=True),
        sa.Column("background", sa.Boolean(), nullable=False),
        sa.Column("store", sa.Boolean(), nullable=False),
        sa.Column("metadata", sa.JSON(), nullable=False),
        sa.Column("has_result", sa.Boolean(), nullable=False),
        sa.Column("prompt_tokens", sa.Integer(), nullable=True),
        sa.Column("completion_tokens", sa.Integer(), nullable=True),
        sa.Column("cached_tokens", sa.Integer(), nullable=True),
        sa.Column("lost_attempts", sa.Integer(), nullable=False),
        sa.Column("retention_s", sa.Integer(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("started_at", MOMENT, nullable=True),
        sa.Column("first_token_at", MOMENT, nullable=True),
        sa.Column("ended_at", MOMENT, nullable=True),
        sa.Column("sent_at", MOMENT, nullable=False),
        sa.Column("erase_at", MOMENT, nullable=True),
        sa.Column("priority_queue", sa.String(), nullable=False),
        sa.Column("body_digest", sa.LargeBinary(), nullable=True),
        sa.Column("num_attached", sa.Integer(), nullable=False),
        sa.Column("expires_at", MOMENT, nullable=True),
        sa.Column("cancel_at", MOMENT, nullable=True),
        sa.Column("webhook", sa.JSON(), nullable=True),
        sa.Column("batch_id", sa.String(), nullable=True),
        sa.Column("conversation_id", sa.String(), nullable=True),
        sa.Column("traceparent", sa.String(), nullable=True),
    )
    queued = ["served_model", "priority_queue", "sent_at", "owner", "id"]
    for name, columns, condition in (
        ("queued", queued, "status = 'queued'"),
        ("running", ["worker_id"], "status = 'in_progress'"),
        ("stored_chat", ["owner", "id"], "kind = 'chat' AND store"),
        ("erase_at", ["erase_at"], "erase_at IS NOT NULL"),
        ("expires_at", ["expires_at"], "expires_at IS NOT NULL AND ended_at IS NULL"),
        ("cancel_at", ["cancel_at"], "cancel_at IS NOT NULL AND ended_at IS NULL"),
        ("unsettled", ["ended_at"], "ended_at IS NOT NULL AND NOT has_result"),
        ("body_digest", ["body_digest"], "body_digest IS NOT NULL"),
    ):
        _create_partial_index(f"ix_job_{name}", "job", columns, condition)
    op.create_index("ix_job_created_at", "job", ["created_at"])
