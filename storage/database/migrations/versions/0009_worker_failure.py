"""Why a worker's model cannot be loaded."""

from alembic import op
from sqlalchemy import Column, String

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; no row is rewritten."""
    op.add_column("worker", Column("failure", String(), nullable=True))


def downgrade() -> None:
    """Remove the column."""
    op.drop_column("worker", "failure")
