"""Deliveries of an endpoint are found by their status."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_NAME = "ix_webhook_delivery_endpoint_status"


def upgrade() -> None:
    op.create_index(_NAME, "webhook_delivery", ["endpoint_id", "status", "id"])


def downgrade() -> None:
    op.drop_index(_NAME, "webhook_delivery")
