"""Fixtures of the workers' tests."""

from collections.abc import Callable, Iterator

import pytest

from storage import ids
from storage.database.group_commit import Writer
from tests.fakes import FakeQueue
from tests.workers.harness import Backend, Bench, running
from workers.maintenance.sweeper import Sweeper
from workers.settings import SweeperSettings

Make = Callable[[], Sweeper]


@pytest.fixture
def backend(database_url: str, redis_url: str) -> Iterator[Backend]:
    """A fresh database of each kind, and the empty Redis."""
    opened = Backend(database_url, redis_url)
    yield opened
    opened.close()


@pytest.fixture
def bench(backend: Backend) -> Iterator[Bench]:
    """A worker whose steps take no time."""
    with running(backend) as ready:
        yield ready


@pytest.fixture
def tickets() -> FakeQueue:
    return FakeQueue()


@pytest.fixture
def make(backend: Backend, tickets: FakeQueue) -> Iterator[Make]:
    """Makes sweepers, each as a process of its own would."""
    writer = Writer(backend.database)
    writer.start()

    def sweeper() -> Sweeper:
        settings = SweeperSettings(worker_id=ids.new_id("cpu_"), ticket_slack_s=60, settling_s=0.0, aging_after_s=50)
        return Sweeper(settings, backend.settings, backend.database, writer, backend.redis, tickets)

    yield sweeper
    writer.stop()


@pytest.fixture
def sweeper(make: Make) -> Sweeper:
    return make()
