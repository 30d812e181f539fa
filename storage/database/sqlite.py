"""What makes SQLite a server's database: write-ahead log, durable commits, and fair waiting among processes."""

import sqlite3
import time

from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

IS_WRITING = "is_writing"
_PAUSE_S = 0.001


def set_up(engine: Engine, busy_timeout_s: float) -> None:
    """Prepare every connection of the engine; those with the execution option IS_WRITING begin as writers."""

    def on_connect(driver: DBAPIConnection, entry: ConnectionPoolEntry) -> None:
        # The driver must not begin transactions by itself: it would begin them deferred.
        driver.isolation_level = None
        cursor = driver.cursor()
        # The timeout first: switching a new file to WAL needs a lock that another process may hold just then.
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


def _begin_immediate(driver: sqlite3.Connection, busy_timeout_s: float) -> None:
    """Begin as a writer; a deferred transaction that turns into one fails at once where another one wrote.

    SQLite itself waits for the lock by looking every 100 ms, and so hardly ever finds the gap between two commits of a
    busy neighbour (p99 0.8 s beside a flood of inserts); looking every millisecond finds it soon (0.06 s).
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
