"""Schema migration: revisions are applied one by one, and rows that must move are moved in batches.

A revision is one transaction. One that defines `move(connection, limit) -> int` and `count_left(connection) -> int` has
rows to move: after its transaction `move` is called, each time in a transaction of its own, until it returns 0; only
then comes the next revision. An upgrade that was interrupted goes on where the last committed batch ended.
"""

import time
from collections.abc import Callable
from types import ModuleType

import msgspec
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from storage.database.connections import Database
from storage.database.schema_version import MIGRATIONS, current_revision

# Any number, the same in every process: it names our lock among PostgreSQL's advisory locks.
_MIGRATION_LOCK = 7_306_911_205
# A batch of rows grows while it takes less than this, so that other writers are not held up for long.
_BATCH_S = 0.5
_MIN_ROWS = 50
_MAX_ROWS = 20_000


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far the rows of a revision are moved."""

    revision: str
    num_moved: int
    num_total: int


def migrate(database_url: str, *, on_progress: Callable[[Progress], None] | None = None) -> None:
    """Bring the schema to the newest revision; processes that do so at once wait for each other.

    on_progress: called after each batch of rows
    """
    # A change of large tables takes its time.
    database = Database(database_url, answer_within_s=None)
    scripts = ScriptDirectory.from_config(_alembic_config())
    revisions = [script.revision for script in scripts.walk_revisions()][::-1]
    try:
        with database.connect() as connection:
            current = current_revision(connection)
        start = 0 if current is None else revisions.index(current)
        for revision in revisions[start:]:
            _upgrade(database, revision)
            module = scripts.get_revision(revision).module
            if hasattr(module, "move"):
                _move(database, module, on_progress)
    finally:
        database.dispose()


def _upgrade(database: Database, revision: str) -> None:
    """Apply one revision; nothing where it, or a later one, was applied before."""
    with database.begin() as connection:
        _lock(connection)
        config = _alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def _move(database: Database, module: ModuleType, on_progress: Callable[[Progress], None] | None) -> None:
    limit, num_moved, num_left = _MIN_ROWS, 0, 0
    while True:
        started = time.monotonic()
        with database.begin() as connection:
            _lock(connection)
            if current_revision(connection) != module.revision:
                return  # another process has moved the rest
            if num_moved == 0:
                num_left = module.count_left(connection)
            num_now = module.move(connection, limit)
        if num_now == 0:
            return
        num_moved += num_now
        if on_progress is not None:
            on_progress(Progress(revision=module.revision, num_moved=num_moved, num_total=max(num_left, num_moved)))
        took_s = time.monotonic() - started
        limit = min(2 * limit, _MAX_ROWS) if took_s < _BATCH_S else max(limit // 2, _MIN_ROWS)


def _lock(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _MIGRATION_LOCK})


def _alembic_config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config
