"""Inserts with a time limit: a late one is refused, and not inserted if that has not begun."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Connection, select

from api.caches.timed_inserts import TimedInserts
from storage.database.connections import Database
from storage.database.group_commit import Insert, Writer
from storage.database.table_definitions import table_of
from storage.errors import StorageUnavailable
from storage.fleet.tables import Holder

_holder = table_of(Holder)


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    return sqlite_url


def _row(name: str) -> Insert:
    return Holder, {"name": name, "worker_id": "w", "beat": 0}


def _names(database: Database) -> list[str]:
    with database.connect() as c:
        return list(c.execute(select(_holder.c.name).order_by(_holder.c.name)).scalars())


@contextmanager
def _blocked(writer: Writer) -> Iterator[None]:
    """The writer does nothing in this block."""
    entered, leave = threading.Event(), threading.Event()

    def wait(_: Connection) -> None:
        entered.set()
        assert leave.wait(10)

    done = writer.submit(wait)
    assert entered.wait(5)
    yield
    leave.set()
    done.result(5)


async def test_inserts_in_time_are_committed(database: Database, writer: Writer) -> None:
    inserts = TimedInserts(writer, timeout_s=10)

    await asyncio.gather(*(inserts.add(_row(name)) for name in "abc"))

    assert _names(database) == ["a", "b", "c"]


async def test_a_late_insert_is_refused_and_does_not_happen(database: Database, writer: Writer) -> None:
    inserts = TimedInserts(writer, timeout_s=0.05)
    with _blocked(writer):
        outcomes = await asyncio.gather(*(inserts.add(_row(name)) for name in "abc"), return_exceptions=True)
    # Later ones have a time limit of their own.
    await inserts.add(_row("d"))

    assert [type(one) for one in outcomes] == [StorageUnavailable] * 3
    assert _names(database) == ["d"]


async def test_an_insert_whose_caller_leaves_does_not_happen(database: Database, writer: Writer) -> None:
    inserts = TimedInserts(writer, timeout_s=10)
    with _blocked(writer):
        leaving = asyncio.create_task(inserts.add(_row("a")))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.wait([leaving])
    await inserts.add(_row("b"))

    assert _names(database) == ["b"]
