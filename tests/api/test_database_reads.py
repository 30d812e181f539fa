"""Questions to the database from the event loop."""

import asyncio
import sqlite3
import threading

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.engine.interfaces import DBAPIConnection

from api.caches.database_reads import Reader
from storage.database.connections import Database


async def test_a_reader_that_is_closed_leaves_no_connection_behind(database: Database) -> None:
    reader = Reader(database, timeout_s=5)
    drivers: list[DBAPIConnection | None] = []
    is_asked, may_answer = threading.Event(), threading.Event()

    def question(connection: Connection) -> object:
        drivers.append(connection.connection.driver_connection)
        is_asked.set()
        assert may_answer.wait(5)
        return connection.execute(text("SELECT 1")).scalar()

    asking = asyncio.create_task(reader.ask(question))
    assert await asyncio.to_thread(is_asked.wait, 5)
    reader.close()
    database.dispose()
    may_answer.set()

    assert await asking == 1
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        drivers[0].cursor()  # type: ignore[union-attr]
