"""Database reads from the event loop."""

import asyncio
import sqlite3
import threading

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.engine.interfaces import DBAPIConnection

from api.caches.database_reads import Reader
from storage.database.connections import Database
from storage.errors import StorageUnavailable


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


_ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


async def test_a_query_that_takes_too_long_is_interrupted(database: Database) -> None:
    reader = Reader(database, timeout_s=0.3)
    ended = threading.Event()

    def search(connection: Connection) -> object:
        try:
            return connection.execute(text(_ENDLESS)).scalar()
        finally:
            ended.set()

    with pytest.raises(StorageUnavailable):
        await reader.search(search)

    assert await asyncio.to_thread(ended.wait, 5)
    assert await reader.ask(lambda connection: connection.execute(text("SELECT 1")).scalar()) == 1
    reader.close()


async def test_searches_do_not_delay_other_queries(database: Database) -> None:
    reader = Reader(database, timeout_s=5)
    may_end = threading.Event()
    searches = [asyncio.create_task(reader.search(lambda _: may_end.wait(5))) for _ in range(20)]
    await asyncio.sleep(0)

    assert await reader.ask(lambda connection: connection.execute(text("SELECT 1")).scalar()) == 1

    assert not any(search.done() for search in searches)
    may_end.set()
    assert await asyncio.gather(*searches) == [True] * 20
    reader.close()


async def test_too_many_queries_are_refused_at_once(database: Database) -> None:
    reader = Reader(database, timeout_s=5, max_pending=3)
    may_end = threading.Event()
    pending = [asyncio.create_task(reader.ask(lambda _: may_end.wait(5))) for _ in range(3)]
    await asyncio.sleep(0)

    with pytest.raises(StorageUnavailable, match="too many"):
        await reader.ask(lambda _: True)

    may_end.set()
    assert await asyncio.gather(*pending) == [True] * 3
    assert await reader.ask(lambda _: True)
    reader.close()


def test_postgres_ends_a_statement_that_takes_too_long(postgres_url: str) -> None:
    database = Database(postgres_url, answer_within_s=0.3)
    with database.connect() as connection:
        assert connection.execute(text("SHOW statement_timeout")).scalar() == "800ms"
    with pytest.raises(StorageUnavailable), database.connect() as connection:
        connection.execute(text("SELECT pg_sleep(5)"))
    database.dispose()
