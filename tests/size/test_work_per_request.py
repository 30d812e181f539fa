"""A request's work in the database does not grow with the jobs in it; counted on SQLite, quick and exact."""

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from storage.database.connections import Database
from storage.jobs import jobs
from storage.jobs.waiting import MAX_EXACT_POSITION
from tests.api.server import serving
from tests.size.client import Client
from tests.size.steps import counted_steps
from tests.size.stocks import ACCEPT, Stock, fill, settings_of

# Of the many, the polled job is behind more jobs than are counted.
FEW, MANY = (20, 40), (4_000, 6_000)
MOST = 1.3
# A poll of a queued job counts the jobs before it, up to MAX_EXACT_POSITION.
STEPS_A_COUNTED_JOB = 16
Action = Callable[[Client, Database, Stock], object]


def _claim(client: Client, database: Database, stock: Stock) -> object:
    with database.begin() as connection:
        return jobs.claim(connection, stock.queued[len(stock.queued) // 2], "worker", datetime.now(UTC))


ACTIONS: dict[str, Action] = {
    "accept": lambda client, database, stock: client.post("/v1/responses", ACCEPT),
    "poll_ended": lambda client, database, stock: client.get(f"/v1/responses/{stock.responses[0]}"),
    "poll_queued": lambda client, database, stock: client.get(f"/v1/responses/{stock.queued[len(stock.queued) // 3]}"),
    "list": lambda client, database, stock: client.get("/v1/chat/completions?limit=5"),
    "list_newest": lambda client, database, stock: client.get("/v1/chat/completions?limit=5&order=desc"),
    "list_absent_metadata": lambda client, database, stock: client.get("/v1/chat/completions?limit=5&metadata[run]=x"),
    "claim": _claim,
}


@pytest.fixture(scope="module")
def steps_of(
    sqlite_template: Path, redis_server_url: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[int, int]]:
    """The instructions of each action with few jobs and with many."""
    steps = [
        _measured(shutil.copyfile(sqlite_template, tmp_path_factory.mktemp("size") / "x.db"), redis_server_url, size)
        for size in (FEW, MANY)
    ]
    return {name: (steps[0][name], steps[1][name]) for name in ACTIONS}


def _measured(path: Path, redis_url: str, size: tuple[int, int]) -> dict[str, int]:
    url = f"sqlite:///{path}"
    stock = fill(url, redis_url, stored=size[0], queued=size[1])
    with counted_steps() as steps, serving(settings_of(url, redis_url, refresh_s=3600)) as server:
        database = Database(url)
        with Client(server.port) as client:
            for action in ACTIONS.values():
                action(client, database, stock)  # what is prepared once is prepared
            found = {
                name: min(steps.of(lambda action=action: action(client, database, stock)) for _ in range(3))
                for name, action in ACTIONS.items()
            }
        database.dispose()
    return found


@pytest.mark.parametrize("name", ACTIONS)
def test_a_request_does_no_more_work_beside_many_jobs(steps_of: dict[str, tuple[int, int]], name: str) -> None:
    few, many = steps_of[name]
    counting = STEPS_A_COUNTED_JOB * MAX_EXACT_POSITION if name == "poll_queued" else 0

    assert few > 0
    assert many <= MOST * few + counting, json.dumps(steps_of)
