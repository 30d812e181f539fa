"""The schema and the promises of connections."""

import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, inspect, select, text
from sqlalchemy.exc import IntegrityError

from storage.database import schema_version
from storage.database.connections import Database
from storage.database.migration import migrate
from storage.database.schema_version import is_current
from storage.database.table_definitions import table_of
from storage.errors import SettingInvalid, StorageUnavailable
from storage.fleet.tables import Holder, Worker
from storage.schema import METADATA
from tests.services import PostgresServer


def _description(engine: Engine) -> dict[str, object]:
    """Everything about a schema that the database itself can tell."""
    found = inspect(engine)
    tables = sorted(set(found.get_table_names()) - {"alembic_version"})
    description: dict[str, object] = {}
    for table in tables:
        columns = {
            column["name"]: (str(column["type"]), column["nullable"], column["default"])
            for column in found.get_columns(table)
        }
        description[table] = (columns, found.get_pk_constraint(table)["constrained_columns"])
        uniques = found.get_unique_constraints(table)
        description[f"{table} unique"] = sorted(tuple(unique["column_names"]) for unique in uniques)
    with engine.connect() as connection:
        description["indexes"] = _indexes(connection)
    engine.dispose()
    return description


def _indexes(connection: Connection) -> set[str]:
    if connection.dialect.name == "sqlite":
        query = "SELECT sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
    else:
        query = "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename <> 'alembic_version'"
    return {" ".join(statement.split()) for statement in connection.execute(text(query)).scalars()}


def test_the_migrated_sqlite_schema_is_that_of_the_tables(sqlite_url: str, tmp_path: Path) -> None:
    created = create_engine(f"sqlite:///{tmp_path / 'created.db'}")
    METADATA.create_all(created)

    assert _description(create_engine(sqlite_url)) == _description(created)


def test_the_migrated_postgres_schema_is_that_of_the_tables(postgres_url: str, postgres_server: PostgresServer) -> None:
    name = postgres_server.create()
    created = create_engine(postgres_server.url_of(name))
    METADATA.create_all(created)

    assert _description(create_engine(postgres_url)) == _description(created)

    postgres_server.drop(name)


def test_two_processes_may_migrate_at_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'new.db'}"
    with ThreadPoolExecutor(3) as threads:
        for done in [threads.submit(migrate, url) for _ in range(3)]:
            done.result()

    database = Database(url)
    assert is_current(database)
    database.dispose()


def test_a_database_that_was_never_migrated_is_not_current(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'empty.db'}")
    assert not is_current(database)
    database.dispose()


def test_a_migration_of_a_current_database_changes_nothing(database_url: str) -> None:
    migrate(database_url)
    database = Database(database_url)
    assert is_current(database)
    database.dispose()


def test_the_version_that_is_read_without_alembic_is_alembics(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripts = ScriptDirectory(str(schema_version.MIGRATIONS))
    database = Database(database_url)
    with database.connect() as connection:
        assert schema_version.current_revision(connection) == scripts.get_current_head()
    assert schema_version.is_migrated(database)

    # A revision that moves rows may have been interrupted.
    monkeypatch.setattr(schema_version, "_moves_rows", lambda: True)
    assert not schema_version.is_migrated(database)
    database.dispose()


def test_a_commit_on_sqlite_is_flushed_to_disk(sqlite_database: Database) -> None:
    with sqlite_database.connect() as c:
        assert c.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert c.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert c.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
        assert c.exec_driver_sql("PRAGMA busy_timeout").scalar() == 8000


def test_a_failing_transaction_leaves_nothing(database: Database) -> None:
    holder = table_of(Holder)

    def insert_twice() -> None:
        with database.begin() as c:
            c.execute(holder.insert().values(name="a", worker_id="w", beat=1))
            c.execute(holder.insert().values(name="a", worker_id="w", beat=1))

    with pytest.raises(IntegrityError):
        insert_twice()

    with database.connect() as c:
        assert c.execute(select(holder)).all() == []


def test_readers_see_only_what_is_committed_and_never_wait(database: Database) -> None:
    holder = table_of(Holder)
    with database.begin() as writing, database.connect() as reading:
        writing.execute(holder.insert().values(name="a", worker_id="w", beat=1))
        assert reading.execute(select(holder)).all() == []

    with database.connect() as reading:
        assert len(reading.execute(select(holder)).all()) == 1


def test_a_writer_waits_for_another_and_gives_up_at_its_deadline(sqlite_url: str) -> None:
    holder = table_of(Holder)
    busy, patient, hasty = Database(sqlite_url), Database(sqlite_url), Database(sqlite_url, busy_timeout_s=0.05)

    def insert(database: Database) -> None:
        with database.begin() as c:
            c.execute(holder.insert().values(name="later", worker_id="w", beat=1))

    with ThreadPoolExecutor(1) as threads:
        with busy.begin() as c:
            c.execute(holder.insert().values(name="first", worker_id="w", beat=1))
            waiting = threads.submit(insert, patient)
            with pytest.raises(StorageUnavailable, match="locked"):
                insert(hasty)
            assert not waiting.done()
        waiting.result()

    with hasty.begin() as c:
        assert len(c.execute(select(holder)).all()) == 2
    for database in (busy, patient, hasty):
        database.dispose()


def test_times_come_back_as_aware_utc_to_the_microsecond(database: Database) -> None:
    worker = table_of(Worker)
    moment = datetime(2026, 11, 21, 1, 2, 3, 456789, tzinfo=timezone(timedelta(hours=2)))
    values = {"id": "w", "model": "m", "status": "ready", "pid": 1, "host": "h", "device": "cpu", "dtype": "float32"}
    with database.begin() as c:
        c.execute(worker.insert().values(**values, beat=0, slots=1, running=0, started_at=moment, updated_at=moment))

    with database.connect() as c:
        found = c.execute(select(worker.c.started_at)).scalar_one()
    assert found == moment
    assert found.tzinfo is UTC


def test_a_database_that_is_away_is_storage_unavailable(tmp_path: Path) -> None:
    for url in (f"sqlite:///{tmp_path}/no/such/folder/x.db", f"postgresql://postgres@/x?host={tmp_path}"):
        database = Database(url)
        with pytest.raises(StorageUnavailable), database.connect() as c:
            c.execute(text("SELECT 1"))
        database.dispose()


def test_an_answer_that_does_not_come_is_given_up_with_its_connection(postgres_url: str) -> None:
    database = Database(postgres_url, answer_within_s=0.3)
    try:
        with pytest.raises(StorageUnavailable, match="did not answer in time"), database.connect() as connection:
            connection.execute(text("SELECT pg_sleep(60)"))

        with database.connect() as connection:
            assert connection.execute(text("SELECT 1")).scalar() == 1
    finally:
        database.dispose()


def test_postgres_without_its_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(SettingInvalid, match=r"tokenpost\[postgres\]"):
        Database("postgresql://x/y")


@pytest.mark.parametrize("url", ["mysql://x/y", "sqlite://", "sqlite:///relative.db", "nonsense"])
def test_an_unknown_database_is_refused_by_name(url: str) -> None:
    with pytest.raises(SettingInvalid, match="TOKENPOST_DATABASE_URL"):
        Database(url)


def test_an_error_tells_the_statement_and_not_its_parameters(database: Database) -> None:
    with pytest.raises(IntegrityError) as raised, database.begin() as connection:
        connection.execute(
            text("INSERT INTO webhook_secret (owner, secret) VALUES ('a', :secret)"), {"secret": "s3cr3t"}
        )
    assert "INSERT INTO webhook_secret" in str(raised.value)
    assert "[SQL parameters hidden" in str(raised.value)
