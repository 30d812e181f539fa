"""SQLite connections: write-ahead log, durable commits, and fair waiting among processes."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

IS_WRITING = "is_writing"
_PAUSE_S = 0.001
# Instructions of SQLite's virtual machine between two looks at the clock: about a millisecond.
_INSTRUCTIONS_PER_CHECK = 50_000


def set_up(engine: Engine, busy_timeout_s: float) -> None:
    """Prepare every connection of the engine; those with the execution option IS_WRITING begin as writers."""

    def on_connect(driver: DBAPIConnection, entry: ConnectionPoolEntry) -> None:
        # The driver would begin transactions deferred.
        driver.isolation_level = None
        cursor = driver.cursor()
        # The timeout comes first: switching a new file to WAL needs a lock that another process may hold.
        for pragma in (_busy_timeout(busy_timeout_s), "journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    def on_begin(connection: Connection) -> None:
        if connection.get_execution_options().get(IS_WRITING):
            driver = connection.connection.driver_connection
            assert isinstance(driver, sqlite3.Connection)
            _begin_immediate(driver, busy_timeout_s)

    event.listen(engine, "connect", on_connect)
    event.listen(engine, "begin", on_begin)


@contextmanager
def interrupting(connection: Connection, after_s: float) -> Iterator[None]:
    """A block whose statements fail with OperationalError once it has lasted so long."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    deadline = time.monotonic() + after_s
    driver.set_progress_handler(lambda: time.monotonic() > deadline, _INSTRUCTIONS_PER_CHECK)
    try:
        yield
    finally:
        with suppress(sqlite3.ProgrammingError):  # it was closed in the block
            driver.set_progress_handler(None, 0)


def _begin_immediate(driver: sqlite3.Connection, busy_timeout_s: float) -> None:
    """Begin a write transaction at once; a deferred one fails on its first write when another process wrote meanwhile.

    SQLite polls for the lock every 100 ms and rarely finds the gap between two commits of a busy process (p99 0.8 s
    beside continuous inserts). Polling every millisecond finds it soon (0.06 s).
    """
    deadline = time.monotonic() + busy_timeout_s
    driver.execute("PRAGMA busy_timeout = 0")
    try:
        while True:
            try:
                driver.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
            else:
                return
            time.sleep(_PAUSE_S)
    finally:
        driver.execute(f"PRAGMA {_busy_timeout(busy_timeout_s)}")


def _busy_timeout(seconds: float) -> str:
    return f"busy_timeout = {int(seconds * 1000)}"
