"""Indexes of stored responses, and of their metadata pairs, kept by triggers on the job table."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

_IS_STORED = "kind = 'response' AND store"
_INDEXES = {
    "ix_job_stored_response": (["owner", "id"], _IS_STORED),
    "ix_job_rare_response": (
        ["owner", "status", "id"],
        f"{_IS_STORED} AND status IN ('incomplete', 'failed', 'cancelled')",
    ),
}


def upgrade() -> None:
    """Create indexes, table and triggers, and note the pairs of all stored responses."""
    for name, (columns, condition) in _INDEXES.items():
        where = sa.text(condition)
        op.create_index(name, "job", columns, sqlite_where=where, postgresql_where=where)
    op.create_table(
        "response_metadata",
        sa.Column("owner", sa.String(), primary_key=True),
        sa.Column("key", sa.String(), primary_key=True),
        sa.Column("value", sa.String(), primary_key=True),
        sa.Column("job_id", sa.String(), primary_key=True),
    )
    op.create_index("ix_response_metadata_job_id", "response_metadata", ["job_id"])
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    for statement in _SQLITE if is_sqlite else _POSTGRESQL:
        op.execute(sa.text(statement))
    each, empty = ("json_each", "job.metadata <> '{}'") if is_sqlite else ("json_each_text", "job.metadata::text <> '{}'")
    op.execute(
        "INSERT INTO response_metadata (owner, key, value, job_id)"
        f" SELECT job.owner, pair.key, pair.value, job.id FROM job, {each}(job.metadata) AS pair"
        f" WHERE job.kind = 'response' AND job.store AND {empty}"
    )


def downgrade() -> None:
    """Drop them."""
    names = ("response_metadata_insert", "response_metadata_update", "response_metadata_delete")
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    for name in names:
        op.execute(f"DROP TRIGGER {name}" if is_sqlite else f"DROP TRIGGER {name} ON job")
    if not is_sqlite:
        op.execute("DROP FUNCTION response_metadata_change")
    op.drop_table("response_metadata")
    for name in _INDEXES:
        op.drop_index(name, "job")


_SQLITE_PAIRS = (
    "INSERT OR IGNORE INTO response_metadata (owner, key, value, job_id)"
    " SELECT NEW.owner, pair.key, pair.value, NEW.id FROM json_each(NEW.metadata) AS pair;"
)
_SQLITE_FORGET = "DELETE FROM response_metadata WHERE job_id = OLD.id;"
_SQLITE = (
    "CREATE TRIGGER response_metadata_insert AFTER INSERT ON job"
    f" WHEN NEW.kind = 'response' AND NEW.store AND NEW.metadata <> '{{}}' BEGIN {_SQLITE_PAIRS} END",
    "CREATE TRIGGER response_metadata_update AFTER UPDATE OF metadata ON job WHEN NEW.kind = 'response' AND NEW.store"
    f" BEGIN {_SQLITE_FORGET} {_SQLITE_PAIRS} END",
    "CREATE TRIGGER response_metadata_delete AFTER DELETE ON job"
    " WHEN OLD.kind = 'response' AND OLD.store AND OLD.metadata <> '{}'"
    f" BEGIN {_SQLITE_FORGET} END",
)
_POSTGRESQL = (
    """
    CREATE FUNCTION response_metadata_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP <> 'INSERT' THEN
            DELETE FROM response_metadata WHERE job_id = OLD.id;
        END IF;
        IF TG_OP <> 'DELETE' THEN
            INSERT INTO response_metadata (owner, key, value, job_id)
            SELECT NEW.owner, pair.key, pair.value, NEW.id FROM json_each_text(NEW.metadata) AS pair
            ON CONFLICT DO NOTHING;
        END IF;
        RETURN NULL;
    END $$
    """,
    "CREATE TRIGGER response_metadata_insert AFTER INSERT ON job FOR EACH ROW"
    " WHEN (NEW.kind = 'response' AND NEW.store AND NEW.metadata::text <> '{}')"
    " EXECUTE FUNCTION response_metadata_change()",
    "CREATE TRIGGER response_metadata_update AFTER UPDATE OF metadata ON job FOR EACH ROW"
    " WHEN (NEW.kind = 'response' AND NEW.store) EXECUTE FUNCTION response_metadata_change()",
    "CREATE TRIGGER response_metadata_delete AFTER DELETE ON job FOR EACH ROW"
    " WHEN (OLD.kind = 'response' AND OLD.store AND OLD.metadata::text <> '{}')"
    " EXECUTE FUNCTION response_metadata_change()",
)
