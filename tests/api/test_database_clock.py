"""The database's time, reported by a process whose own clock may be wrong."""

import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from api.caches.database_clock import DatabaseClock
from api.caches.database_reads import Reader
from storage.database.connections import Database
from tests.waiting import wait_until_async


class LocalClock:
    """Off by so many seconds."""

    def __init__(self) -> None:
        self.off_s = 0.0

    def __call__(self) -> float:
        return time.time() + self.off_s


@pytest.fixture
def local() -> LocalClock:
    return LocalClock()


@pytest.fixture
async def clock(database: Database, local: LocalClock) -> AsyncIterator[DatabaseClock]:
    reads = Reader(database, timeout_s=5)
    yield DatabaseClock(reads, every_s=0.02, local=local)
    reads.close()


def _error_s(clock: DatabaseClock) -> float:
    return abs((clock.now() - datetime.now(UTC)).total_seconds())


@pytest.mark.parametrize("off_s", [86400.0, -3600.0])
async def test_a_wrong_clock_is_corrected_from_the_start(clock: DatabaseClock, local: LocalClock, off_s: float) -> None:
    local.off_s = off_s
    assert _error_s(clock) > 3000

    await clock.start()

    assert _error_s(clock) < 5
    await clock.stop()


async def test_a_clock_that_is_right_is_taken_as_it_is(clock: DatabaseClock, local: LocalClock) -> None:
    local.off_s = 0.1
    await clock.start()

    before = time.time() + 0.1
    now = clock.now().timestamp()

    assert before <= now <= time.time() + 0.1
    await clock.stop()


async def test_a_clock_that_is_set_anew_is_noticed(clock: DatabaseClock, local: LocalClock) -> None:
    await clock.start()
    local.off_s = 500.0

    await wait_until_async(lambda: _error_s(clock) < 5)

    await clock.stop()
