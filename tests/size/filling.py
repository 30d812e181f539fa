"""Databases full of jobs within seconds: rows that the platform wrote are cloned in SQL, in every table of a job."""

from typing import Any

from sqlalchemy import Column, Connection, Integer, Table, text

from storage.database.columns import UtcDateTime
from storage.database.connections import Database
from storage.schema import METADATA

# Clones are this much older one after the other: a day for a million.
STEP_S = 0.08
_JOB = "job"
_NUM_TIME_DIGITS = 12
_ROWS_A_TRANSACTION = 100_000
_ID_SQLITE = ":prefix || printf('%012x%012x', :milliseconds - i, i) || :rest"
_ID_POSTGRES = (
    "CAST(:prefix AS TEXT) || lpad(to_hex(CAST(:milliseconds AS BIGINT) - i), 12, '0') || lpad(to_hex(i), 12, '0') "
    "|| CAST(:rest AS TEXT)"
)
_TIME_SQLITE = f"strftime('%Y-%m-%d %H:%M:%f', t.\"{{name}}\", '-' || (i * {STEP_S}) || ' seconds') || '000'"
_TIME_POSTGRES = f't."{{name}}" - make_interval(secs => i * {STEP_S})'


def clone_job(database: Database, job_id: str, count: int) -> list[str]:
    """Ids of as many copies of a job, oldest last: same owner, status and payload, other ids and earlier times."""
    prefix, milliseconds, rest = _parts(job_id)
    known = {"template": job_id, "prefix": prefix, "milliseconds": milliseconds, "rest": rest}
    for first in range(0, count, _ROWS_A_TRANSACTION):
        span = {"first": first + 1, "last": min(count, first + _ROWS_A_TRANSACTION)}
        with database.begin() as connection:
            for table in tables_of_jobs():
                connection.execute(text(_clone(connection, table)), known | span)
    return [clone_id(job_id, number) for number in range(1, count + 1)]


def clone_id(job_id: str, number: int) -> str:
    """The id of a copy: as `storage.ids` makes one, so many milliseconds before."""
    prefix, milliseconds, rest = _parts(job_id)
    return f"{prefix}{milliseconds - number:012x}{number:012x}{rest}"


def analyse(database: Database) -> None:
    """What autovacuum does on PostgreSQL a minute after such a change; nothing on SQLite."""
    if not database.is_sqlite:
        with database.connect() as connection:
            connection.execute(text("VACUUM (ANALYZE)"))


def tables_of_jobs() -> list[Table]:
    """The table of jobs, then those that hold more of each."""
    others = [table for table in METADATA.tables.values() if "job_id" in table.c and not _is_about_webhooks(table)]
    return [METADATA.tables[_JOB], *others]


def _is_about_webhooks(table: Table) -> bool:
    return table.name.startswith("webhook")


def _parts(job_id: str) -> tuple[str, int, str]:
    """Prefix, milliseconds and the last eight random digits of an id of `storage.ids`."""
    digits = job_id[-32:]
    return job_id[:-32], int(digits[:_NUM_TIME_DIGITS], 16), digits[-8:]


def _clone(connection: Connection, table: Table) -> str:
    is_sqlite = connection.dialect.name == "sqlite"
    of_job = "id" if table.name == _JOB else "job_id"
    columns = [column for column in table.c if not _is_numbered_by_the_database(column)]
    names = ", ".join(f'"{column.name}"' for column in columns)
    values = ", ".join(_value(column, of_job, is_sqlite) for column in columns)
    series = (
        "WITH RECURSIVE n(i) AS (SELECT CAST(:first AS INTEGER) UNION ALL SELECT i + 1 FROM n WHERE i < :last) "
        if is_sqlite
        else ""
    )
    source = "n" if is_sqlite else "generate_series(CAST(:first AS BIGINT), CAST(:last AS BIGINT)) AS n(i)"
    insert = f'INSERT INTO "{table.name}" ({names})'
    rows = f'SELECT {values} FROM "{table.name}" AS t, {source} WHERE t."{of_job}" = :template'
    # Triggers of the table of jobs may have written a row of another table already.
    return f"{series}{insert} {rows} ON CONFLICT DO NOTHING"


def _is_numbered_by_the_database(column: "Column[Any]") -> bool:
    return column.primary_key and column.name == "id" and isinstance(column.type, Integer)


def _value(column: "Column[Any]", of_job: str, is_sqlite: bool) -> str:
    """SQL for a column of a copy: the template's value, but for ids and times."""
    if column.name == of_job:
        return _ID_SQLITE if is_sqlite else _ID_POSTGRES
    if column.name == "body_digest":
        # A retry is found by it, and nobody retries a million jobs.
        return "NULL"
    if isinstance(column.type, UtcDateTime):
        return (_TIME_SQLITE if is_sqlite else _TIME_POSTGRES).format(name=column.name)
    return f't."{column.name}"'
