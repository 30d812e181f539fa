"""The progress of revision 0010 goes, once every stored chat was indexed."""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Drop the table that held the position of `move`."""
    op.drop_table("chat_metadata_progress")


def downgrade() -> None:
    """Not possible, as for revision 0007."""
    raise NotImplementedError("revision 0011 cannot be undone; restore a backup")
