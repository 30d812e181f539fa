"""Which of its model's two queues a job's tickets go to."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def _replace_index(*columns: str) -> None:
    op.drop_index("ix_job_queued", "job")
    where = sa.text("status = 'queued'")
    op.create_index("ix_job_queued", "job", list(columns), sqlite_where=where, postgresql_where=where)


def upgrade() -> None:
    op.add_column("job", sa.Column("lane", sa.String(), nullable=False, server_default="front"))
    _replace_index("model", "lane", "sent_at")


def downgrade() -> None:
    _replace_index("model", "sent_at")
    op.drop_column("job", "lane")
