"""What a generation worker's engine tells of itself, beside its beat."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("worker", sa.Column("engine", sa.JSON(), nullable=True))


def downgrade() -> None:
    op.drop_column("worker", "engine")
