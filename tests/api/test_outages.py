"""Redis or the database goes away, hangs and comes back."""

import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from api.settings import ApiSettings
from storage.broker.redis_client import connect
from storage.database.connections import Database
from storage.jobs import jobs
from tests.api.examples import CALLS, CHAT, RESPONSE, Call, without_heartbeats
from tests.api.fake_worker import FakeWorker
from tests.api.server import Server
from tests.services import RedisServer, running_redis
from tests.waiting import wait_until


@pytest.fixture
def settings(settings: ApiSettings) -> ApiSettings:
    """Settings with the timeout that an API process has by default."""
    return settings.model_copy(update={"storage_timeout_s": 1.5})


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """A Redis that may be killed."""
    with running_redis(keeps_data=True) as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """Its address."""
    return redis_server.url


@pytest.fixture
def database_file(sqlite_url: str) -> str:
    """The path of the SQLite file."""
    return sqlite_url.removeprefix("sqlite:///")


def test_a_stream_outlives_its_redis(
    http: httpx2.Client, worker: FakeWorker, redis_server: RedisServer, server: Server
) -> None:
    worker.pauses_at = 4
    with http.stream("POST", CHAT.path, json={**CHAT.body, "stream": True}) as answer:
        url = CHAT.url_of(answer.headers["x-job-id"])
        wait_until(lambda: "Hello" in http.get(url).text)
        redis_server.kill()
        wait_until(lambda: not _relay(server).is_connected)
        redis_server.start()
        worker.go.set()
        live = without_heartbeats(answer.read())

    assert live.endswith(b"data: [DONE]\n\n")
    assert without_heartbeats(http.get(url, params={"stream": "true"}).content) == live


@pytest.mark.parametrize(
    ("fields", "headers"),
    [({}, {}), ({"stream": True}, {}), ({}, {"prefer": "respond-async"}), ({}, {"idempotency-key": "k"})],
    ids=["blocking", "stream", "background", "keyed"],
)
def test_without_redis_nothing_is_accepted_and_no_row_written(
    http: httpx2.Client,
    redis_server: RedisServer,
    server: Server,
    database: Database,
    fields: dict[str, object],
    headers: dict[str, str],
) -> None:
    redis_server.kill()
    wait_until(lambda: not _relay(server).is_connected)

    refused = [_timed(call, http, _of_call(headers, call), **fields) for call in CALLS]

    for answer, took_s in refused:
        _assert_refused(answer, took_s)
    assert _num_jobs(database) == 0
    redis_server.start()
    wait_until(lambda: _relay(server).is_connected)
    for call in CALLS:
        assert call.post(http, _of_call(headers, call), **fields).is_success


def test_a_full_redis_takes_nothing_and_no_row_is_written(
    http: httpx2.Client, redis_server: RedisServer, server: Server, database: Database
) -> None:
    with connect(redis_server.url) as redis:
        redis.config_set("maxmemory", "1")
        wait_until(lambda: server.app.state.jobs.streaming.redis_memory.is_full)

        started = time.monotonic()
        refused = RESPONSE.post(http)
        _assert_refused(refused, time.monotonic() - started)
        assert _num_jobs(database) == 0

        redis.config_set("maxmemory", "0")
        wait_until(lambda: not server.app.state.jobs.streaming.redis_memory.is_full)
    assert RESPONSE.post(http).is_success


def test_a_reader_of_a_job_that_ends_while_redis_is_emptied_gets_all_of_it(
    http: httpx2.Client, worker: FakeWorker, redis_server: RedisServer, server: Server
) -> None:
    worker.pauses_at, worker.is_silent_at_the_end = 4, True
    with http.stream("POST", CHAT.path, json={**CHAT.body, "stream": True}) as answer:
        url = CHAT.url_of(answer.headers["x-job-id"])
        wait_until(lambda: "Hello" in http.get(url).text)
        worker.forget()
        with connect(redis_server.url) as redis:
            redis.flushall()
        worker.go.set()
        live = without_heartbeats(answer.read())

    assert live.endswith(b"data: [DONE]\n\n")
    assert without_heartbeats(http.get(url, params={"stream": "true"}).content) == live


def test_without_redis_what_is_stored_can_be_read(
    http: httpx2.Client, redis_server: RedisServer, server: Server
) -> None:
    done = RESPONSE.post(http).json()["id"]
    redis_server.kill()
    wait_until(lambda: not _relay(server).is_connected)

    assert http.get(RESPONSE.url_of(done)).json()["status"] == "completed"
    assert b"response.completed" in http.get(RESPONSE.url_of(done), params={"stream": "true"}).content
    not_ready = http.get("/readyz")
    assert (not_ready.status_code, not_ready.json()["redis"]) == (503, "unavailable")


def test_while_redis_hangs_nothing_is_accepted(
    http: httpx2.Client, redis_server: RedisServer, server: Server, database: Database
) -> None:
    redis_server.send_signal(signal.SIGSTOP)
    try:
        wait_until(lambda: _silence(server) > 1.3 or not _relay(server).is_connected)
        started = time.monotonic()
        refused = RESPONSE.post(http, background=True)
        took_s = time.monotonic() - started
    finally:
        redis_server.send_signal(signal.SIGCONT)

    _assert_refused(refused, took_s)
    assert _num_jobs(database) == 0


@pytest.mark.parametrize("headers", [{}, {"prefer": "respond-async"}], ids=["blocking", "background"])
def test_a_redis_that_has_only_begun_to_hang_takes_nothing_either(
    http: httpx2.Client, redis_server: RedisServer, server: Server, database: Database, headers: dict[str, str]
) -> None:
    redis_server.send_signal(signal.SIGSTOP)
    try:
        # Half a second may pass between two words of a Redis that is well.
        wait_until(lambda: _silence(server) > 0.15)
        refused = _at_once(http, headers)
    finally:
        redis_server.send_signal(signal.SIGCONT)

    for answer, took_s in refused:
        _assert_refused(answer, took_s)
    assert _num_jobs(database) == 0


def test_a_redis_that_hangs_is_noticed(
    http: httpx2.Client, worker: FakeWorker, redis_server: RedisServer, server: Server
) -> None:
    redis_server.send_signal(signal.SIGSTOP)
    try:
        started = time.monotonic()
        assert http.get("/readyz").json()["redis"] == "unavailable"
        assert time.monotonic() - started < 2
        wait_until(lambda: not _relay(server).is_connected, 8.0)
    finally:
        redis_server.send_signal(signal.SIGCONT)

    wait_until(lambda: _relay(server).is_connected, 10.0)
    assert RESPONSE.post(http).json()["status"] == "completed"


@pytest.mark.parametrize("headers", [{}, {"idempotency-key": "k"}], ids=["plain", "keyed"])
def test_a_database_that_does_not_answer_is_a_503_in_time(
    http: httpx2.Client, database_file: str, database: Database, headers: dict[str, str]
) -> None:
    with sqlite3.connect(database_file, isolation_level=None) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        refused = _at_once(http, {"prefer": "respond-async", **headers})
        holder.execute("ROLLBACK")

    for answer, took_s in refused:
        _assert_refused(answer, took_s)
    # What was refused is not done after all.
    for number, call in enumerate(CALLS, 1):
        assert call.post(http, _of_call(headers, call)).status_code == 200
        assert _num_jobs(database) == number


def test_a_silent_stream_says_that_it_lives(http: httpx2.Client, worker: FakeWorker, server: Server) -> None:
    worker.pauses_at = 3
    _relay(server).heartbeat_s = 0.3
    timer = threading.Timer(1.5, worker.go.set)
    timer.start()

    answer = CHAT.post(http, stream=True)

    assert answer.content.count(b": ping\n") >= 1
    assert answer.content.endswith(b"data: [DONE]\n\n")


def _relay(server: Server):  # type: ignore[no-untyped-def]  # api.streaming.relay.Relay
    return server.app.state.jobs.streaming.relay


def _silence(server: Server) -> float:
    reported: list[float] = []
    server.call(lambda: reported.append(_relay(server).silent_s))
    return wait_until(lambda: reported)[0]


def _at_once(http: httpx2.Client, headers: dict[str, str]) -> list[tuple[httpx2.Response, float]]:
    """The answers to the calls of all protocols, made at the same time, and how long each took."""
    with ThreadPoolExecutor(len(CALLS)) as threads:
        asked = [threads.submit(_timed, call, http, _of_call(headers, call)) for call in CALLS]
    return [one.result() for one in asked]


def _timed(call: Call, http: httpx2.Client, headers: dict[str, str], **fields: object) -> tuple[httpx2.Response, float]:
    started = time.monotonic()
    answer = call.post(http, headers, **fields)
    return answer, time.monotonic() - started


def _of_call(headers: dict[str, str], call: Call) -> dict[str, str]:
    """The headers with a key of the call's own, where they have one."""
    return headers | {name: f"{key}{call.path}" for name, key in headers.items() if name == "idempotency-key"}


def _assert_refused(answer: httpx2.Response, took_s: float) -> None:
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "storage_unavailable"
    assert answer.headers["retry-after"] == "1"
    assert "x-should-retry" not in answer.headers
    assert took_s < 2


def _num_jobs(database: Database) -> int:
    with database.connect() as c:
        return len(jobs.list_all(c))
