"""The old table of jobs goes, once every job was moved out of it."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Drop the table that revision 0007 has emptied."""
    op.drop_table("job_0006")


def downgrade() -> None:
    """Not possible, as for revision 0007."""
    raise NotImplementedError("revision 0008 cannot be undone; restore a backup")
