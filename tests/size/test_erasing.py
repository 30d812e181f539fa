"""Jobs whose time is over are erased as quickly as new ones can come."""

import time
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import func, select

from storage import ids
from storage.broker.redis_client import connect
from storage.database.connections import Database
from storage.database.group_commit import Writer
from storage.database.table_definitions import table_of
from storage.jobs.tables import Job
from tests.fakes import FakeQueue
from tests.size.conftest import MakeDatabase
from tests.size.figures import Figure, Figures
from tests.size.stocks import fill, settings_of
from workers.maintenance.sweeper import Sweeper
from workers.settings import SweeperSettings

FEW, MANY = 2_000, 50_000
# What one API process may accept a second, which all come to their end some day.
LEAST_PER_S = 3_000
Count = Callable[[], int]


@pytest.fixture
def filled(make_database: MakeDatabase, redis_url: str, request: pytest.FixtureRequest) -> str:
    """A database with so many jobs whose time is over."""
    url = make_database()
    fill(url, redis_url, stored=request.param, queued=1, job_retention_stored_s=0)
    return url


@pytest.fixture
def database(filled: str) -> Iterator[Database]:
    opened = Database(filled)
    yield opened
    opened.dispose()


@pytest.fixture
def sweeper(database: Database, filled: str, redis_url: str) -> Iterator[Sweeper]:
    """The only sweeper of the fleet."""
    writer = Writer(database)
    writer.start()
    settings = SweeperSettings(worker_id=ids.new_id("cpu_"))
    with connect(redis_url) as connection:
        yield Sweeper(settings, settings_of(filled, redis_url), database, writer, connection, FakeQueue())
    writer.stop()


@pytest.fixture
def num_ended(database: Database) -> Count:
    """Counts the ended jobs that are left."""
    query = select(func.count()).where(table_of(Job).c.ended_at.is_not(None))

    def count() -> int:
        with database.connect() as connection:
            return int(connection.execute(query).scalar_one())

    return count


@pytest.mark.parametrize("filled", [FEW], indirect=True)
def test_a_sweep_goes_on_while_there_is_something_to_erase(sweeper: Sweeper, num_ended: Count) -> None:
    assert num_ended() >= FEW

    for _ in range(3):
        sweeper.sweep()

    assert num_ended() == 0


@pytest.mark.at_size
@pytest.mark.timeout(900)
@pytest.mark.parametrize("filled", [MANY], indirect=True)
def test_erasing_keeps_up_with_what_is_accepted(
    filled: str, sweeper: Sweeper, num_ended: Count, figures: Figures
) -> None:
    started = time.monotonic()
    while num_ended():
        if not sweeper.sweep():
            # As the sweeper's thread pauses when no work is left.
            time.sleep(SweeperSettings().sweep_interval_s)
    rate = MANY / (time.monotonic() - started)

    kind = filled.partition(":")[0].partition("+")[0]
    figures.check(Figure(what=f"{kind}: jobs erased, of {MANY:,}", seen=rate, least=LEAST_PER_S, unit="a second"))
