"""A million stored jobs and a hundred thousand queued ones: what one more job costs beside them, and a start."""

import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from storage.database.connections import Database
from storage.jobs import jobs
from tests.size.client import Client
from tests.size.conftest import MakeDatabase, MakeRedis
from tests.size.figures import Figure, Figures, interleaved_p50_s
from tests.size.processes import Api, running_api
from tests.size.stocks import ACCEPT, Stock, fill

pytestmark = [pytest.mark.at_size, pytest.mark.timeout(3600)]

NUM_STORED, NUM_QUEUED = 1_000_000, 100_000
NUM_STORED_EMPTY, NUM_QUEUED_EMPTY = 100, 500
MOST = 1.3
MOST_START_S = 2.0
ROUNDS, CALLS, NUM_STARTS = 25, 12, 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """An API process with one of the two databases."""

    api: Api
    client: Client
    database: Database
    stock: Stock


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """Where an API process finds its database and its Redis, and what lies in the first."""

    kind: str
    database_url: str
    redis_url: str
    stock: Stock


@pytest.fixture(scope="module")
def grounds(make_database: MakeDatabase, make_redis: MakeRedis) -> tuple[Ground, Ground]:
    """A database with hardly a job in it, and a full one."""
    made = []
    for stored, queued in ((NUM_STORED_EMPTY, NUM_QUEUED_EMPTY), (NUM_STORED, NUM_QUEUED)):
        url, redis_url = make_database(), make_redis()
        stock = fill(url, redis_url, stored=stored, queued=queued)
        kind = url.partition(":")[0].partition("+")[0]
        made.append(Ground(kind=kind, database_url=url, redis_url=redis_url, stock=stock))
    return made[0], made[1]


@pytest.fixture
def sides(grounds: tuple[Ground, Ground]) -> Iterator[tuple[Side, Side]]:
    """Both with a process in front, which run side by side."""
    with ExitStack() as stack:
        made = []
        for ground in grounds:
            api = stack.enter_context(running_api(ground.database_url, ground.redis_url))
            client = stack.enter_context(Client(api.port))
            database = Database(ground.database_url)
            stack.callback(database.dispose)
            made.append(Side(api=api, client=client, database=database, stock=ground.stock))
        yield made[0], made[1]


def _claim(side: Side, number: int) -> None:
    # From the middle of the queue, as a busy fleet would have left it.
    job_id = side.stock.queued[len(side.stock.queued) // 4 + number]
    with side.database.begin() as connection:
        assert jobs.claim(connection, job_id, "worker", datetime.now(UTC)) is not None


def _poll(side: Side, path: str) -> None:
    assert side.client.get(path).status == 200


def _accept(side: Side, number: int) -> None:
    assert side.client.post("/v1/responses", ACCEPT).status == 200


ACTIONS: dict[str, Callable[[Side, int], None]] = {
    "accept": _accept,
    "poll of an ended job": lambda side, number: _poll(side, f"/v1/responses/{side.stock.responses[number % 50]}"),
    "poll of a queued job": lambda side, number: _poll(
        side, f"/v1/responses/{side.stock.queued[len(side.stock.queued) * 3 // 4 + number % 100]}"
    ),
    "list of stored chats": lambda side, number: _poll(side, "/v1/chat/completions?limit=20"),
    "list of the newest chats": lambda side, number: _poll(side, "/v1/chat/completions?limit=20&order=desc"),
    "list of stored responses": lambda side, number: _poll(side, "/v1/responses?limit=20"),
    "list of failed responses": lambda side, number: _poll(side, "/v1/responses?status=failed"),
    "claim": _claim,
}


def test_a_million_stored_jobs_slow_nobody(
    grounds: tuple[Ground, Ground], sides: tuple[Side, Side], figures: Figures
) -> None:
    found = []
    for name, action in ACTIONS.items():
        few_s, many_s = interleaved_p50_s(
            [lambda number, side=side, action=action: action(side, number) for side in sides],  # type: ignore[misc]
            rounds=ROUNDS,
            calls=CALLS,
        )
        found.append(
            Figure(
                what=f"{grounds[0].kind}: {name}, p50 beside {NUM_STORED:,} stored and {NUM_QUEUED:,} queued jobs",
                seen=many_s / few_s,
                most=MOST,
                note=f"{1e3 * few_s:.2f} and {1e3 * many_s:.2f} ms",
            )
        )

    figures.check(*found)


def test_a_process_starts_soon_beside_a_million_jobs(grounds: tuple[Ground, Ground], figures: Figures) -> None:
    seconds: list[list[float]] = [[], []]
    for _ in range(NUM_STARTS):
        for ground, taken in zip(grounds, seconds, strict=True):
            with running_api(ground.database_url, ground.redis_url) as api:
                taken.append(api.started_in_s)

    few_s, many_s = map(statistics.median, seconds)
    figures.check(
        Figure(
            what=f"{grounds[0].kind}: start of an API process, more than on an empty database",
            seen=many_s - few_s,
            most=MOST_START_S,
            unit="s",
            note=f"{few_s:.2f} and {many_s:.2f} s",
        )
    )
