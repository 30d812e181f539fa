"""The schema's version, read without alembic: importing it takes longer than all that a start asks of the database."""

from functools import cache
from pathlib import Path

from sqlalchemy import Connection, inspect, text

from storage.database.connections import Database

MIGRATIONS = Path(__file__).parent / "migrations"
# alembic's own name.
_TABLE = "alembic_version"
# A revision that defines this function moves rows after its transaction (`storage.database.migration`).
_MOVES_ROWS = "def move("


def is_current(database: Database) -> bool:
    """Whether the schema is at the newest revision."""
    with database.connect() as connection:
        return current_revision(connection) == _newest().name[:4]


def is_migrated(database: Database) -> bool:
    """Whether `migrate` would find nothing to do. False also where rows of the newest revision may be left to move."""
    return not _moves_rows() and is_current(database)


def current_revision(connection: Connection) -> str | None:
    """The revision of the schema; None for a database without tables."""
    if not inspect(connection).has_table(_TABLE):
        return None
    found = connection.execute(text(f"SELECT version_num FROM {_TABLE}")).scalar()
    return None if found is None else str(found)


@cache
def _newest() -> Path:
    """The file of the newest revision. Files are named after their revisions, which are numbered."""
    return max((MIGRATIONS / "versions").glob("[0-9][0-9][0-9][0-9]_*.py"), key=lambda path: path.name)


@cache
def _moves_rows() -> bool:
    return _MOVES_ROWS in _newest().read_text(encoding="utf-8")
