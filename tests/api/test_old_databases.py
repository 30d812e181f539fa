"""Databases of `acaa713` are migrated in place: every stored job reads as before, and the queued ones run.

`tests/storage/old_database/make.py` made the dumps, with that version's code.
"""

import json
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import pytest
from sqlalchemy import select, text

from api.settings import ApiSettings
from storage.broker.celery_queue import TicketPublisher
from storage.contract import JobStatus
from storage.database.connections import Database
from storage.database.migration import Progress, migrate
from storage.database.table_definitions import table_of
from storage.jobs import jobs, recovery
from storage.webhooks.tables import WebhookEndpoint, WebhookEvent
from tests.api.fake_worker import WORKER_ID, working
from tests.api.server import serving
from tests.services import PostgresServer
from tests.waiting import wait_until

_DUMPS = Path(__file__).parents[1] / "storage" / "old_database"
Expected = dict[str, Any]  # Any: as make.py wrote it


@pytest.fixture(params=["sqlite", "postgres"])
def kind(request: pytest.FixtureRequest) -> str:
    """Which database."""
    return str(request.param)


@pytest.fixture
def expected(kind: str) -> Expected:
    """What the old version answered."""
    found: Expected = json.loads((_DUMPS / "expected.json").read_text())[kind]
    return found


@pytest.fixture
def old_url(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """A database as the old version left it."""
    dump = (_DUMPS / f"{kind}.sql").read_text()
    if kind == "sqlite":
        with sqlite3.connect(tmp_path / "old.db") as connection:
            connection.executescript(dump)
        yield f"sqlite:///{tmp_path / 'old.db'}"
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    name = server.create()
    with psycopg.connect(f"host={server.socket.parent} user=postgres dbname={name}", autocommit=True) as connection:
        connection.execute(dump.encode())
    yield server.url_of(name)
    server.drop(name)


def _settings(database_url: str, redis_url: str) -> ApiSettings:
    return ApiSettings(database_url=database_url, redis_url=redis_url, pepper="pepper", refresh_s=0.1)


def _same(path: str, now: str, before: str) -> bool:
    """Whether an answer is what it was, byte for byte; finished async completions have got a `status`."""
    if path.startswith("/v1/async/"):
        answer = json.loads(now)
        answer.pop("status", None)
        return bool(answer == json.loads(before))
    return now == before


def test_every_stored_job_reads_and_replays_as_before(old_url: str, redis_url: str, expected: Expected) -> None:
    migrate(old_url)

    headers = {"authorization": f"Bearer {expected['key']}"}
    with (
        serving(_settings(old_url, redis_url)) as server,
        httpx2.Client(base_url=server.url, trust_env=False, timeout=20, headers=headers) as http,
    ):
        answers = {one["path"]: http.get(one["path"]).text for one in expected["reads"]}
        refused = httpx2.get(f"{server.url}/v1/models", trust_env=False)

    differing = [one["path"] for one in expected["reads"] if not _same(one["path"], answers[one["path"]], one["body"])]
    assert differing == []
    assert refused.status_code == 401


def test_queued_and_running_jobs_run_after_the_migration(old_url: str, redis_url: str, expected: Expected) -> None:
    migrate(old_url)

    database, tickets = Database(old_url), TicketPublisher(redis_url)
    with database.begin() as c:
        lost = recovery.requeue_of_dead_workers(c, [WORKER_ID], max_lost_attempts=3, now=datetime.now(UTC)).tickets
        [(model, priority_queue)] = recovery.list_queues(c)
        found = recovery.list_lost_tickets(c, model, priority_queue, recovery.database_now(c))
    assert [ticket.job_id for ticket in lost] == [expected["running"]]
    assert {ticket.job_id for ticket in found} >= set(expected["queued"])
    tickets.start()
    with working(old_url, redis_url):
        for ticket in {ticket.job_id: ticket for ticket in (*lost, *found)}.values():
            tickets.send(ticket.job_id, ticket.model, ticket.priority_queue)
        wanted = [*expected["queued"], expected["running"]]
        with database.connect() as c:
            wait_until(lambda: {state.status for state in jobs.list_states(c, wanted)} == {JobStatus.COMPLETED}, 20)
    tickets.stop()
    with database.connect() as c:
        reported = c.execute(select(table_of(WebhookEvent).c.job_id)).scalars().all()
        [endpoint] = c.execute(select(table_of(WebhookEndpoint).c.url)).scalars()
    database.dispose()

    assert set(reported) >= set(wanted)
    assert endpoint == "https://127.0.0.1:9/all"


def test_an_interrupted_migration_goes_on_where_it_ended(
    old_url: str, redis_url: str, expected: Expected, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.database.migration._MIN_ROWS", 2)
    monkeypatch.setattr("storage.database.migration._MAX_ROWS", 2)
    seen: list[Progress] = []

    def die(progress: Progress) -> None:
        seen.append(progress)
        if len(seen) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        migrate(old_url, on_progress=die)
    database = Database(old_url)
    with database.connect() as c:
        num_left = c.execute(text("SELECT count(*) FROM job_0006")).scalar_one()
        num_moved = c.execute(text("SELECT count(*) FROM job")).scalar_one()
    assert (num_moved, num_moved + num_left) == (6, seen[0].num_total)

    migrate(old_url, on_progress=seen.append)

    with database.connect() as c:
        counts = [c.execute(text(f"SELECT count(*) FROM {name}")).scalar_one() for name in ("job", "job_input")]
    database.dispose()
    assert counts == [seen[0].num_total] * 2
    assert seen[3].num_total == num_left
