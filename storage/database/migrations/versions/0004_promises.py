"""Retries that find their job, deadlines, idempotency keys, webhooks."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)
_JOB_INDEXES = {
    "expires_at": "expires_at IS NOT NULL AND ended_at IS NULL",
    "cancel_at": "cancel_at IS NOT NULL AND ended_at IS NULL",
    "body_digest": "body_digest IS NOT NULL",
    "ended_at": "ended_at IS NOT NULL AND result IS NULL",
}
_TABLES = (
    "idempotency_key",
    "webhook_endpoint",
    "webhook_secret",
    "webhook_event",
    "webhook_delivery",
    "webhook_attempt",
)


def _create_partial_index(name: str, table: str, columns: list[str], condition: str) -> None:
    where = sa.text(condition)
    op.create_index(name, table, columns, sqlite_where=where, postgresql_where=where)


def _replace_queued_index(*columns: str) -> None:
    op.drop_index("ix_job_queued", "job")
    _create_partial_index("ix_job_queued", "job", list(columns), "status = 'queued'")


def _upgrade_job() -> None:
    _replace_queued_index("model", "lane", "sent_at", "owner", "id")
    op.add_column("job", sa.Column("body_digest", sa.LargeBinary(), nullable=True))
    op.add_column("job", sa.Column("num_attached", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("job", sa.Column("expires_at", MOMENT, nullable=True))
    op.add_column("job", sa.Column("cancel_at", MOMENT, nullable=True))
    op.add_column("job", sa.Column("webhook", sa.JSON(), nullable=True))
    for column, condition in _JOB_INDEXES.items():
        _create_partial_index(f"ix_job_{column}", "job", [column], condition)


def upgrade() -> None:
    _upgrade_job()
    op.create_table(
        "idempotency_key",
        sa.Column("owner", sa.String(), primary_key=True),
        sa.Column("key", sa.String(), primary_key=True),
        sa.Column("body_digest", sa.LargeBinary(), nullable=False),
        sa.Column("resource_id", sa.String(), nullable=False, index=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False, index=True),
    )
    op.create_table(
        "webhook_endpoint",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("owner", sa.String(), nullable=False, index=True),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("url", sa.String(), nullable=False),
        sa.Column("event_types", sa.JSON(), nullable=False),
        sa.Column("secret", sa.String(), nullable=False),
        sa.Column("old_secret", sa.String(), nullable=True),
        sa.Column("old_secret_until", MOMENT, nullable=True),
        sa.Column("failing_since", MOMENT, nullable=True),
        sa.Column("disabled_at", MOMENT, nullable=True),
        sa.Column("disabled_reason", sa.String(), nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
    )
    op.create_table(
        "webhook_secret",
        sa.Column("owner", sa.String(), primary_key=True),
        sa.Column("secret", sa.String(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
    )
    op.create_table(
        "webhook_event",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("job_id", sa.String(), nullable=False, index=True),
        sa.Column("created_at", MOMENT, nullable=False, index=True),
        sa.Column("target", sa.JSON(), nullable=True),
        sa.Column("is_fanned_out", sa.Boolean(), nullable=False),
    )
    _create_partial_index("ix_webhook_event_new", "webhook_event", ["created_at"], "NOT is_fanned_out")
    op.create_table(
        "webhook_delivery",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("event_id", sa.String(), nullable=False, index=True),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("endpoint_id", sa.String(), nullable=True),
        sa.Column("job_id", sa.String(), nullable=True, index=True),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("url", sa.String(), nullable=False),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("secret", sa.String(), nullable=True),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("num_attempts", sa.Integer(), nullable=False),
        sa.Column("num_attempts_before", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", MOMENT, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False, index=True),
        sa.Column("ended_at", MOMENT, nullable=True),
    )
    op.create_index("ix_webhook_delivery_endpoint", "webhook_delivery", ["endpoint_id", "id"])
    due, line = ["next_attempt_at", "owner", "host", "status"], ["owner", "host", "next_attempt_at", "status"]
    _create_partial_index("ix_webhook_delivery_due", "webhook_delivery", due, "status = 'pending'")
    _create_partial_index("ix_webhook_delivery_line", "webhook_delivery", line, "status = 'pending'")
    op.create_table(
        "webhook_attempt",
        sa.Column("delivery_id", sa.String(), primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True),
        sa.Column("started_at", MOMENT, nullable=False),
        sa.Column("latency_ms", sa.Integer(), nullable=False),
        sa.Column("status_code", sa.Integer(), nullable=True),
        sa.Column("error", sa.String(), nullable=True),
        sa.Column("answer", sa.String(), nullable=True),
    )


def downgrade() -> None:
    for table in reversed(_TABLES):
        op.drop_table(table)
    for column in _JOB_INDEXES:
        op.drop_index(f"ix_job_{column}", "job")
    _replace_queued_index("model", "lane", "sent_at")
    for column in ("webhook", "cancel_at", "expires_at", "num_attached", "body_digest"):
        op.drop_column("job", column)
