"""The API on PostgreSQL: what differs from SQLite is how it waits, and how it goes away."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx2
import psycopg
import pytest
from psycopg import sql
from sqlalchemy import make_url

from api.settings import ApiSettings
from storage.database.connections import Database
from storage.jobs import jobs
from tests.api.examples import CALLS, CHAT, NAMES, Call
from tests.api.fake_worker import FakeWorker
from tests.waiting import wait_until

KEY = {"idempotency-key": "k"}


@pytest.fixture
def settings(settings: ApiSettings) -> ApiSettings:
    """Settings with the timeout that an API process has by default."""
    return settings.model_copy(update={"storage_timeout_s": 1.5})


@pytest.fixture
def database_url(postgres_url: str) -> str:
    return postgres_url


@contextmanager
def _held(database_url: str) -> Iterator[None]:
    """Nobody can write a job during the block."""
    with psycopg.connect(_conninfo(database_url)) as holder:
        holder.execute("LOCK TABLE job IN ACCESS EXCLUSIVE MODE")
        yield


@contextmanager
def _away(database_url: str) -> Iterator[None]:
    """Nobody is let into the database during the block, and everybody was thrown out before."""
    database = make_url(database_url).database
    assert database is not None
    name = sql.Identifier(database)
    with psycopg.connect(_conninfo(database_url, database="postgres"), autocommit=True) as operator:
        operator.execute(sql.SQL("ALTER DATABASE {} WITH ALLOW_CONNECTIONS false").format(name))
        operator.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [database])
        try:
            yield
        finally:
            operator.execute(sql.SQL("ALTER DATABASE {} WITH ALLOW_CONNECTIONS true").format(name))


def _conninfo(database_url: str, *, database: str | None = None) -> str:
    url = make_url(database_url)
    return f"host={url.query['host']} user=postgres dbname={database or url.database}"


def _assert_refused(answer: httpx2.Response, took_s: float) -> None:
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert took_s < 2


def _num_jobs(database: Database) -> int:
    with database.connect() as c:
        return len(jobs.list_all(c))


@pytest.mark.parametrize("headers", [{}, KEY], ids=["plain", "keyed"])
@pytest.mark.parametrize("call", CALLS, ids=NAMES)
def test_what_cannot_be_written_in_time_is_refused_and_not_done_later(
    http: httpx2.Client, database_url: str, database: Database, call: Call, headers: dict[str, str]
) -> None:
    with _held(database_url):
        started = time.monotonic()
        refused = call.post(http, {"prefer": "respond-async", **headers})
        took_s = time.monotonic() - started

    _assert_refused(refused, took_s)
    assert call.post(http, headers).status_code == 200
    assert _num_jobs(database) == 1


def test_a_database_that_throws_everybody_out_is_a_503_until_it_is_back(
    http: httpx2.Client, worker: FakeWorker, database_url: str
) -> None:
    with _away(database_url):
        started = time.monotonic()
        refused = [CHAT.post(http, headers) for headers in ({}, {"prefer": "respond-async"}, KEY)]
        took_s = (time.monotonic() - started) / len(refused)

    for answer in refused:
        _assert_refused(answer, took_s)
    wait_until(lambda: CHAT.post(http, KEY).status_code == 200)


def test_of_calls_at_once_at_two_processes_one_makes_the_job(
    http: httpx2.Client, elsewhere: httpx2.Client, worker: FakeWorker, database: Database
) -> None:
    with ThreadPoolExecutor(8) as callers:
        for round_ in range(5):
            key = {"idempotency-key": f"k{round_}"}
            answers = list(callers.map(lambda at, key=key: CHAT.post(at, key), [http, elsewhere] * 4))

            assert {answer.status_code for answer in answers} <= {200, 409}
            done = [answer for answer in answers if answer.status_code == 200]
            assert len({answer.headers["x-job-id"] for answer in done}) == 1
            assert sum("idempotent-replayed" not in answer.headers for answer in done) == 1
            assert _num_jobs(database) == round_ + 1

    assert worker.num_claimed == 5


def test_a_retry_joins_the_job_at_another_process(
    http: httpx2.Client, elsewhere: httpx2.Client, worker: FakeWorker
) -> None:
    first = CHAT.post(http)
    again = CHAT.post(elsewhere, {"x-stainless-retry-count": "1"})

    assert again.content == first.content
    assert again.headers["x-job-id"] == first.headers["x-job-id"]
    assert worker.num_claimed == 1
