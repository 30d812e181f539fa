"""Queue counts and an index of metadata pairs, kept by triggers on the job table."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create tables and triggers, and count what is queued; `move` indexes the metadata of stored chats."""
    op.create_table(
        "queue_count",
        sa.Column("served_model", sa.String(), primary_key=True),
        sa.Column("priority_queue", sa.String(), primary_key=True),
        sa.Column("owner", sa.String(), primary_key=True),
        sa.Column("part", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("num_jobs", sa.Integer(), nullable=False),
    )
    op.create_table(
        "chat_metadata",
        sa.Column("owner", sa.String(), primary_key=True),
        sa.Column("key", sa.String(), primary_key=True),
        sa.Column("value", sa.String(), primary_key=True),
        sa.Column("job_id", sa.String(), primary_key=True),
    )
    op.create_index("ix_chat_metadata_job_id", "chat_metadata", ["job_id"])
    # Up to which id `move` has come; revision 0011 drops it.
    op.create_table("chat_metadata_progress", sa.Column("job_id", sa.String(), nullable=False))
    op.execute("INSERT INTO chat_metadata_progress (job_id) VALUES ('')")
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    for statement in _SQLITE if is_sqlite else _POSTGRESQL:
        op.execute(sa.text(statement))
    op.execute(
        "INSERT INTO queue_count (served_model, priority_queue, owner, part, num_jobs)"
        " SELECT served_model, priority_queue, owner, 0, count(*) FROM job WHERE status = 'queued' GROUP BY 1, 2, 3"
    )


def move(connection: sa.Connection, limit: int) -> int:
    """How many stored chats were indexed, at most `limit`; 0 when none is left. The caller commits."""
    query = f"SELECT job.id FROM job WHERE {_IS_LEFT} ORDER BY job.id LIMIT :limit"
    job_ids = connection.execute(sa.text(query), {"limit": limit}).scalars().all()
    if job_ids:
        last = {"last": job_ids[-1]}
        each = "json_each" if connection.dialect.name == "sqlite" else "json_each_text"
        # A chat that was accepted since the upgrade has its pairs already.
        connection.execute(
            sa.text(
                "INSERT INTO chat_metadata (owner, key, value, job_id)"
                f" SELECT job.owner, pair.key, pair.value, job.id FROM job, {each}(job.metadata) AS pair"
                f" WHERE {_IS_LEFT} AND job.id <= :last ON CONFLICT DO NOTHING"
            ),
            last,
        )
        connection.execute(sa.text("UPDATE chat_metadata_progress SET job_id = :last"), last)
    return len(job_ids)


def count_left(connection: sa.Connection) -> int:
    """How many stored chats `move` has still to look at."""
    return int(connection.execute(sa.text(f"SELECT count(*) FROM job WHERE {_IS_LEFT}")).scalar_one())


# Chats by id, not by owner: so that a portion ends at an id.
_IS_LEFT = "kind = 'chat' AND store AND job.id > (SELECT job_id FROM chat_metadata_progress)"


def downgrade() -> None:
    """Not possible, as for revision 0007."""
    raise NotImplementedError("revision 0010 cannot be undone; restore a backup")


_KEY = "served_model, priority_queue, owner, part"


def _sqlite_change(row: str, num_jobs: int) -> str:
    return (
        f"INSERT INTO queue_count ({_KEY}, num_jobs)"
        f" VALUES ({row}.served_model, {row}.priority_queue, {row}.owner, 0, {num_jobs})"
        f" ON CONFLICT ({_KEY}) DO UPDATE SET num_jobs = num_jobs + {num_jobs};"
    )


def _sqlite_drop_zero(row: str) -> str:
    return (
        f"DELETE FROM queue_count WHERE served_model = {row}.served_model AND priority_queue = {row}.priority_queue"
        f" AND owner = {row}.owner AND part = 0 AND num_jobs = 0;"
    )


_SQLITE_PAIRS = (
    "INSERT OR IGNORE INTO chat_metadata (owner, key, value, job_id)"
    " SELECT NEW.owner, pair.key, pair.value, NEW.id FROM json_each(NEW.metadata) AS pair;"
)
_SQLITE_FORGET = "DELETE FROM chat_metadata WHERE job_id = OLD.id;"
_SQLITE = (
    "CREATE TRIGGER queue_count_insert AFTER INSERT ON job WHEN NEW.status = 'queued'"
    f" BEGIN {_sqlite_change('NEW', 1)} END",
    "CREATE TRIGGER queue_count_leave AFTER UPDATE OF status, served_model, priority_queue, owner ON job"
    f" WHEN OLD.status = 'queued' BEGIN {_sqlite_change('OLD', -1)} {_sqlite_drop_zero('OLD')} END",
    "CREATE TRIGGER queue_count_enter AFTER UPDATE OF status, served_model, priority_queue, owner ON job"
    f" WHEN NEW.status = 'queued' BEGIN {_sqlite_change('NEW', 1)} {_sqlite_drop_zero('NEW')} END",
    "CREATE TRIGGER queue_count_delete AFTER DELETE ON job WHEN OLD.status = 'queued'"
    f" BEGIN {_sqlite_change('OLD', -1)} {_sqlite_drop_zero('OLD')} END",
    "CREATE TRIGGER chat_metadata_insert AFTER INSERT ON job"
    f" WHEN NEW.kind = 'chat' AND NEW.store AND NEW.metadata <> '{{}}' BEGIN {_SQLITE_PAIRS} END",
    "CREATE TRIGGER chat_metadata_update AFTER UPDATE OF metadata ON job WHEN NEW.kind = 'chat' AND NEW.store"
    f" BEGIN {_SQLITE_FORGET} {_SQLITE_PAIRS} END",
    "CREATE TRIGGER chat_metadata_delete AFTER DELETE ON job WHEN OLD.kind = 'chat' AND OLD.store"
    f" BEGIN {_SQLITE_FORGET} END",
)
_POSTGRESQL = (
    "CREATE SEQUENCE queue_count_part",
    """
    CREATE FUNCTION queue_count_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP <> 'INSERT' AND OLD.status = 'queued' THEN
            INSERT INTO queue_count (served_model, priority_queue, owner, part, num_jobs)
            VALUES (OLD.served_model, OLD.priority_queue, OLD.owner, nextval('queue_count_part'), -1);
        END IF;
        IF TG_OP <> 'DELETE' AND NEW.status = 'queued' THEN
            INSERT INTO queue_count (served_model, priority_queue, owner, part, num_jobs)
            VALUES (NEW.served_model, NEW.priority_queue, NEW.owner, nextval('queue_count_part'), 1);
        END IF;
        RETURN NULL;
    END $$
    """,
    "CREATE TRIGGER queue_count_insert AFTER INSERT ON job FOR EACH ROW WHEN (NEW.status = 'queued')"
    " EXECUTE FUNCTION queue_count_change()",
    "CREATE TRIGGER queue_count_update AFTER UPDATE ON job FOR EACH ROW WHEN"
    " ((OLD.status = 'queued' OR NEW.status = 'queued')"
    " AND (OLD.status, OLD.served_model, OLD.priority_queue, OLD.owner)"
    " IS DISTINCT FROM (NEW.status, NEW.served_model, NEW.priority_queue, NEW.owner))"
    " EXECUTE FUNCTION queue_count_change()",
    "CREATE TRIGGER queue_count_delete AFTER DELETE ON job FOR EACH ROW WHEN (OLD.status = 'queued')"
    " EXECUTE FUNCTION queue_count_change()",
    """
    CREATE FUNCTION chat_metadata_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP <> 'INSERT' THEN
            DELETE FROM chat_metadata WHERE job_id = OLD.id;
        END IF;
        IF TG_OP <> 'DELETE' THEN
            INSERT INTO chat_metadata (owner, key, value, job_id)
            SELECT NEW.owner, pair.key, pair.value, NEW.id FROM json_each_text(NEW.metadata) AS pair
            ON CONFLICT DO NOTHING;
        END IF;
        RETURN NULL;
    END $$
    """,
    "CREATE TRIGGER chat_metadata_insert AFTER INSERT ON job FOR EACH ROW"
    " WHEN (NEW.kind = 'chat' AND NEW.store AND NEW.metadata::text <> '{}')"
    " EXECUTE FUNCTION chat_metadata_change()",
    "CREATE TRIGGER chat_metadata_update AFTER UPDATE OF metadata ON job FOR EACH ROW"
    " WHEN (NEW.kind = 'chat' AND NEW.store) EXECUTE FUNCTION chat_metadata_change()",
    "CREATE TRIGGER chat_metadata_delete AFTER DELETE ON job FOR EACH ROW"
    " WHEN (OLD.kind = 'chat' AND OLD.store) EXECUTE FUNCTION chat_metadata_change()",
)
