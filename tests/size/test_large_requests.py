"""A claim of a job with a request of a megabyte writes, and takes, hardly more than one of a small job."""

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import text

from storage.database.connections import Database
from storage.jobs import jobs
from tests.api.fake_worker import working
from tests.api.server import serving
from tests.size.client import Client
from tests.size.conftest import MakeDatabase
from tests.size.figures import Figure, Figures, interleaved_p50_s
from tests.size.filling import clone_job
from tests.size.stocks import ACCEPT, MODEL, settings_of

MOST = 1.5
ROUNDS, CALLS = 15, 2
NUM_COPIES = 2 * ROUNDS * CALLS
_MESSAGE = {"type": "message", "role": "user", "content": "a word or two " * 7_000}
LARGE = json.dumps(
    {
        "model": MODEL,
        "input": [_MESSAGE] * 10 + [{"type": "message", "role": "user", "content": "the end"}],
        "truncation": "auto",
        "background": True,
    }
).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """A database with small and large jobs in its queue."""

    kind: str
    url: str
    database: Database
    small: list[str]
    large: list[str]


@pytest.fixture(scope="module")
def queue(make_database: MakeDatabase, redis_server_url: str) -> Iterator[Queue]:
    url = make_database()
    settings = settings_of(url, redis_server_url)
    with working(url, redis_server_url) as worker, serving(settings) as server, Client(server.port) as client:
        worker.die()
        small = client.post("/v1/responses", ACCEPT).json["id"]
        large = client.post("/v1/responses", LARGE).json["id"]
    database = Database(url)
    yield Queue(
        kind=url.partition(":")[0].partition("+")[0],
        url=url,
        database=database,
        small=clone_job(database, small, NUM_COPIES),
        large=clone_job(database, large, NUM_COPIES),
    )
    database.dispose()


def _claim(queue: Queue, job_id: str) -> None:
    with queue.database.begin() as connection:
        assert jobs.claim(connection, job_id, "worker", datetime.now(UTC)) is not None


def _written_bytes(queue: Queue, job_ids: list[str]) -> float:
    """Bytes of write-ahead log for each of these claims."""
    if queue.database.is_sqlite:
        path = Path(queue.url.removeprefix("sqlite:///"))
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        for job_id in job_ids:
            _claim(queue, job_id)
        return path.with_name(f"{path.name}-wal").stat().st_size / len(job_ids)
    before = _lsn(queue)
    for job_id in job_ids:
        _claim(queue, job_id)
    return (_lsn(queue) - before) / len(job_ids)


def _lsn(queue: Queue) -> int:
    with queue.database.connect() as connection:
        return int(connection.execute(text("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")).scalar_one())


def test_a_claim_writes_as_little_for_a_large_request(queue: Queue, figures: Figures) -> None:
    small, large = (_written_bytes(queue, job_ids[-20:]) for job_ids in (queue.small, queue.large))

    note = f"{small / 1000:.1f} and {large / 1000:.1f} kB"
    what = f"{queue.kind}: bytes written by a claim of a job with 1 MB of request, of those of a small one"
    figures.check(Figure(what=what, seen=large / small, most=MOST, note=note))


@pytest.mark.at_size
def test_a_claim_is_as_quick_for_a_large_request(queue: Queue, figures: Figures) -> None:
    small_s, large_s = interleaved_p50_s(
        [lambda number, ids=ids: _claim(queue, ids[number]) for ids in (queue.small, queue.large)],  # type: ignore[misc]
        rounds=ROUNDS,
        calls=CALLS,
    )

    note = f"{1e3 * small_s:.2f} and {1e3 * large_s:.2f} ms"
    what = f"{queue.kind}: claim of a job with 1 MB of request, p50"
    figures.check(Figure(what=what, seen=large_s / small_s, most=MOST, note=note))
