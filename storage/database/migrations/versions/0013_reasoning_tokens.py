"""Jobs count the tokens of their thoughts; null in rows of before, which had none."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column("job", sa.Column("reasoning_tokens", sa.Integer()))


def downgrade() -> None:
    """Drop the column."""
    op.drop_column("job", "reasoning_tokens")
