"""An index of stored responses by model."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

_IS_STORED = sa.text("kind = 'response' AND store")


def upgrade() -> None:
    """Create the index."""
    columns = ["owner", "model", "id"]
    op.create_index("ix_job_response_of_model", "job", columns, sqlite_where=_IS_STORED, postgresql_where=_IS_STORED)


def downgrade() -> None:
    """Drop the index."""
    op.drop_index("ix_job_response_of_model", "job")
