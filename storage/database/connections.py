"""Connections to SQLite or PostgreSQL, set up so that commits are durable and readers never block the writer."""

import importlib
import importlib.util
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec
from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from storage.database import sqlite
from storage.errors import SettingInvalid, StorageUnavailable
from storage.settings import normalise_database_url

_DEADLOCK = "40P01"
# sqlite3's own error comes from waiting for the write lock, outside SQLAlchemy.
_OUTAGE_ERRORS = (OperationalError, InterfaceError, PoolTimeout, sqlite3.OperationalError)


class Database:
    """A pool of connections to one database; safe to share between threads."""

    def __init__(self, url: str, *, busy_timeout_s: float = 8.0, answer_within_s: float | None = 5.0) -> None:
        """Open nothing yet; SettingInvalid for a URL that no installed driver serves.

        busy_timeout_s:  longest wait for other writers of a SQLite file
        answer_within_s: longest wait for PostgreSQL's answer to one statement; None is no limit
        """
        self._engine = _create_engine(url, busy_timeout_s, answer_within_s)
        self.is_sqlite = self._engine.dialect.name == "sqlite"
        self._writing = self._engine.execution_options(**{sqlite.IS_WRITING: True})
        # A read needs no transaction: without one PostgreSQL saves two round trips.
        self._reading = self._engine if self.is_sqlite else self._engine.execution_options(isolation_level="AUTOCOMMIT")

    @contextmanager
    def connect(self, *, interrupt_after_s: float | None = None) -> Iterator[Connection]:
        """A connection for reading, each statement on its own; StorageUnavailable when the database is down.

        interrupt_after_s: SQLite gives up statements of this block after so long; PostgreSQL has `answer_within_s`
        """
        with _translated(), self._reading.connect() as connection:
            if interrupt_after_s is None or not self.is_sqlite:
                yield connection
            else:
                with sqlite.interrupting(connection, interrupt_after_s):
                    yield connection

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """One transaction that may write, committed at the end; StorageUnavailable when the database is down."""
        with _translated(), self._writing.begin() as connection:
            yield connection

    def dispose(self) -> None:
        """Close every idle connection."""
        self._engine.dispose()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except _OUTAGE_ERRORS as error:
        raise translate(error) from error


def translate(error: Exception) -> Exception:
    """StorageUnavailable for an error of an unavailable database; any other error unchanged."""
    if not isinstance(error, _OUTAGE_ERRORS):
        return error
    origin = error.orig if isinstance(error, DBAPIError) else error
    first_line = str(origin).partition("\n")[0]
    return StorageUnavailable(f"the database does not answer: {first_line}")


def is_deadlock(error: Exception) -> bool:
    """Whether PostgreSQL rolled the transaction back to end a deadlock."""
    return isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) == _DEADLOCK


def _create_engine(url: str, busy_timeout_s: float, answer_within_s: float | None) -> Engine:
    try:
        url = normalise_database_url(url)
    except ValueError as error:
        raise SettingInvalid(f"TOKENPOST_DATABASE_URL: {error}") from error
    if url.startswith("sqlite"):
        engine = create_engine(url, pool_size=8, max_overflow=32, hide_parameters=True, **_POOL, **_JSON)
        sqlite.set_up(engine, busy_timeout_s)
        return engine
    if importlib.util.find_spec("psycopg") is None:
        raise SettingInvalid("TOKENPOST_DATABASE_URL names PostgreSQL, which needs: pip install 'tokenpost[postgres]'")
    engine = create_engine(
        url,
        pool_size=8,
        max_overflow=32,
        pool_pre_ping=True,
        # An error is logged with its statement, and parameters are prompts and secrets.
        hide_parameters=True,
        connect_args={"connect_timeout": 3},
        **_POOL,
        **_JSON,
    )
    # Imported here because it needs psycopg, an optional dependency.
    importlib.import_module("storage.database.postgres").set_up(engine, answer_within_s)
    return engine


def _to_json(value: object) -> str:
    return msgspec.json.encode(value).decode()


# The connection that was used last has the pages and the parsed statements of the last commit.
_POOL: dict[str, bool] = {"pool_use_lifo": True}
_JSON: dict[str, Callable[..., object]] = {"json_serializer": _to_json, "json_deserializer": msgspec.json.decode}
