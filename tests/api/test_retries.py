"""The openai SDK's retries carry no key; they find the job of their first attempt all the same."""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import openai
import pytest
from sqlalchemy import update

from api.settings import ApiSettings
from storage.accounts import keys
from storage.contract import JobStatus
from storage.database.connections import Database
from storage.database.table_definitions import table_of
from storage.jobs import jobs
from storage.jobs.records import JobRecord
from storage.jobs.tables import Job
from tests.api.examples import CALLS, CHAT, CHAT_MESSAGES, COMPLETION, NAMES, RESPONSE, Call, without_heartbeats
from tests.api.fake_worker import TEXT, FakeWorker
from tests.api.server import PEPPER, Server, set_clock
from tests.waiting import wait_until

RETRY, KEY = {"x-stainless-retry-count": "1", "x-stainless-read-timeout": "600"}, {"idempotency-key": "k"}
ROOT = Path(__file__).parents[2]


def _all_jobs(database: Database) -> list[JobRecord]:
    with database.connect() as c:
        return jobs.list_all(c)


def _job(database: Database) -> JobRecord:
    [job] = _all_jobs(database)
    return job


def _age(database: Database, seconds: float) -> None:
    with database.begin() as c:
        c.execute(update(table_of(Job)).values(created_at=datetime.now(UTC) - timedelta(seconds=seconds)))


@contextmanager
def _waiting_for(
    port: int, path: str, body: dict[str, object], headers: dict[str, str] | None = None
) -> Iterator[None]:
    """A caller who has posted and waits, until the end of the block; then it has gone."""
    data = _bytes_of(body)
    head = {
        "host": "localhost",
        "content-type": "application/json",
        "content-length": str(len(data)),
        **(headers or {}),
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode() + data)
        yield


def _bytes_of(body: dict[str, object]) -> bytes:
    """The body as clients send it: the same bytes every time."""
    return httpx2.Request("POST", "http://localhost", json=body).content


# --- which job a retry joins ---


@pytest.mark.parametrize("seconds", [600, -600])
def test_a_retry_finds_its_job_at_a_process_whose_clock_is_wrong(
    http: httpx2.Client, elsewhere: httpx2.Client, other_server: Server, database: Database, seconds: float
) -> None:
    headers = {**RETRY, "x-stainless-read-timeout": "60"}
    first = RESPONSE.post(http)
    set_clock(other_server, seconds)
    second = RESPONSE.post(elsewhere, headers)
    third = CHAT.post(elsewhere)
    fourth = CHAT.post(http, headers)

    assert first.headers["x-job-id"] == second.headers["x-job-id"]
    assert third.headers["x-job-id"] == fourth.headers["x-job-id"]
    assert len(_all_jobs(database)) == 2


@pytest.mark.parametrize("call", CALLS, ids=NAMES)
@pytest.mark.parametrize(
    ("fields", "headers"),
    [({}, {}), ({"stream": True}, {}), ({}, {"prefer": "respond-async"}), ({}, {"prefer": "wait=20"})],
    ids=["blocking", "stream", "receipt", "wait"],
)
def test_a_retry_gets_the_answer_of_the_first_try(
    http: httpx2.Client, worker: FakeWorker, call: Call, fields: dict[str, object], headers: dict[str, str]
) -> None:
    first = call.post(http, headers, **fields)
    wait_until(lambda: worker.num_finished == 1)
    again = call.post(http, {**headers, **RETRY}, **fields)

    assert again.status_code == first.status_code
    assert again.headers["x-job-id"] == first.headers["x-job-id"]
    assert again.headers["idempotent-replayed"] == "true"
    if "prefer" not in headers:
        assert without_heartbeats(again.content) == without_heartbeats(first.content)
    assert worker.num_claimed == 1


def test_a_retry_of_a_background_call_shows_its_job(http: httpx2.Client, worker: FakeWorker) -> None:
    worker.pauses_at = 3
    first = RESPONSE.post(http, background=True)
    again = RESPONSE.post(http, RETRY, background=True)
    alias = [http.post("/v1/async/completions", json=COMPLETION.body, headers=head) for head in ({}, RETRY)]

    assert again.json()["id"] == first.json()["id"]
    assert alias[0].json()["id"] == alias[1].json()["id"]
    wait_until(lambda: worker.num_claimed == 2)


def test_what_is_no_retry_of_the_same_call_makes_a_job_of_its_own(
    http: httpx2.Client, worker: FakeWorker, database: Database
) -> None:
    CHAT.post(http)
    others = [
        CHAT.post(http, {"x-stainless-retry-count": "0"}),
        CHAT.post(http, {"x-stainless-retry-count": "-1"}),
        CHAT.post(http, {"x-stainless-retry-count": "many"}),
        CHAT.post(http, RETRY, temperature=0.5),
        http.post("/v1/streaming/chat", json=CHAT.body, headers=RETRY),
    ]

    assert [answer.status_code for answer in others] == [200] * 5
    assert not any("idempotent-replayed" in answer.headers for answer in others)
    assert len(_all_jobs(database)) == worker.num_claimed == 6


@pytest.mark.parametrize(
    ("timeout", "age_s", "is_joined"),
    [
        ("30", 20, True),
        ("30", 40, False),
        (None, 590, True),
        (None, 610, False),
        ("soon", 590, True),
        ("nan", 610, False),
        ("-1", 590, True),
        ("1e9", 3500, True),
        ("inf", 610, False),
        ("1e9", 3700, False),
    ],
)
def test_a_retry_joins_no_job_that_is_older_than_its_callers_patience(
    http: httpx2.Client, database: Database, timeout: str | None, age_s: float, is_joined: bool
) -> None:
    CHAT.post(http)
    _age(database, age_s)
    headers = {"x-stainless-retry-count": "1"} | ({} if timeout is None else {"x-stainless-read-timeout": timeout})

    again = CHAT.post(http, headers)

    assert ("idempotent-replayed" in again.headers) is is_joined


def test_a_retry_joins_no_other_owners_job(http: httpx2.Client, database: Database, server: Server) -> None:
    with database.begin() as c:
        alice, bob = (
            _bearer_of(keys.create(c, owner, pepper=PEPPER, now=datetime.now(UTC))) for owner in ("alice", "bob")
        )
    wait_until(lambda: http.get("/v1/models").status_code == 401)

    assert CHAT.post(http, alice).headers["x-job-id"] != CHAT.post(http, bob | RETRY).headers["x-job-id"]


def test_a_retry_of_an_erased_job_makes_a_new_one(http: httpx2.Client) -> None:
    first = CHAT.post(http)
    http.delete(CHAT.url_of(first.headers["x-job-id"]))

    assert CHAT.post(http, RETRY).headers["x-job-id"] != first.headers["x-job-id"]


def test_retries_of_calls_that_are_alike_find_a_job_each(http: httpx2.Client, worker: FakeWorker) -> None:
    made = {CHAT.post(http).headers["x-job-id"] for _ in range(3)}

    assert {CHAT.post(http, RETRY).headers["x-job-id"] for _ in range(3)} == made
    assert {CHAT.post(http, {"x-stainless-retry-count": "2"}).headers["x-job-id"] for _ in range(3)} == made
    assert worker.num_claimed == 3


def test_a_call_that_was_refused_joins_no_other_calls_job(
    settings: ApiSettings, http: httpx2.Client, worker: FakeWorker, sqlite_url: str
) -> None:
    """Samples of one prompt: the one that had to come again is a sample of its own."""
    neighbour = CHAT.post(http)
    with sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        refused = CHAT.post(http)
        holder.execute("ROLLBACK")
    own = CHAT.post(http, RETRY)
    second = CHAT.post(http, RETRY)

    assert refused.status_code == 503
    assert own.status_code == 200
    assert "idempotent-replayed" not in own.headers
    # One refusal, one new job: the attempt after that is again one whose answer was lost.
    assert second.headers["x-job-id"] in {own.headers["x-job-id"], neighbour.headers["x-job-id"]}
    assert worker.num_claimed == 2


@pytest.mark.parametrize(("timeout", "is_joined"), [("30", False), ("60", True)])
def test_the_sdk_for_javascript_tells_its_patience_in_another_header(
    http: httpx2.Client, database: Database, timeout: str, is_joined: bool
) -> None:
    CHAT.post(http)
    _age(database, 40)

    again = CHAT.post(http, {"x-stainless-retry-count": "1", "x-stainless-timeout": timeout})

    assert ("idempotent-replayed" in again.headers) is is_joined


# --- who leaves, and who is still there ---


@pytest.mark.parametrize(("first", "again"), [({}, RETRY), (KEY, KEY)], ids=["counted", "keyed"])
@pytest.mark.parametrize("is_stream", [True, False], ids=["stream", "blocking"])
@pytest.mark.parametrize("call", CALLS, ids=NAMES)
def test_a_retry_after_its_caller_left_makes_a_new_job(
    server: Server,
    http: httpx2.Client,
    worker: FakeWorker,
    database: Database,
    call: Call,
    is_stream: bool,
    first: dict[str, str],
    again: dict[str, str],
) -> None:
    worker.pauses_at = 3
    body = {**call.body, "stream": is_stream}
    with _waiting_for(server.port, call.path, body, first):
        wait_until(lambda: worker.num_claimed == 1)
    wait_until(lambda: _job(database).status is JobStatus.CANCELLED)
    worker.go.set()

    answer = http.post(call.path, json=body, headers=again)

    assert answer.status_code == 200
    assert "idempotent-replayed" not in answer.headers
    assert [job.status for job in _all_jobs(database)] == [JobStatus.COMPLETED, JobStatus.CANCELLED]


@pytest.mark.parametrize("is_elsewhere", [False, True], ids=["here", "elsewhere"])
@pytest.mark.parametrize("is_stream", [True, False], ids=["stream", "blocking"])
def test_who_leaves_after_the_retry_has_come_cancels_nothing(
    server: Server,
    other_server: Server,
    http: httpx2.Client,
    worker: FakeWorker,
    database: Database,
    is_stream: bool,
    is_elsewhere: bool,
) -> None:
    worker.pauses_at = 3
    body = {**CHAT.body, "stream": is_stream}
    left = other_server if is_elsewhere else server
    with _waiting_for(left.port, CHAT.path, body):
        wait_until(lambda: worker.num_claimed == 1)
        answers: list[httpx2.Response] = []
        retry = threading.Thread(target=lambda: answers.append(http.post(CHAT.path, json=body, headers=RETRY)))
        retry.start()
        wait_until(lambda: _job(database).num_attached == 1)
    wait_until(lambda: _num_readers(left) == (0 if is_elsewhere else 1))
    worker.go.set()
    retry.join(20)

    assert answers[0].status_code == 200
    assert "agai" in answers[0].text
    assert _job(database).status is JobStatus.COMPLETED


def test_the_last_caller_who_leaves_cancels(server: Server, worker: FakeWorker, database: Database) -> None:
    worker.pauses_at = 3
    with _waiting_for(server.port, CHAT.path, CHAT.body):
        wait_until(lambda: worker.num_claimed == 1)
        with _waiting_for(server.port, CHAT.path, CHAT.body, RETRY):
            wait_until(lambda: _num_readers(server) == 2)
        wait_until(lambda: _num_readers(server) == 1)
        assert _job(database).status is JobStatus.IN_PROGRESS

    wait_until(lambda: _job(database).status is JobStatus.CANCELLED)


# --- the SDK itself ---


class _LosesTheFirstAnswer(httpx2.HTTPTransport):
    """A network over which the first answer does not arrive."""

    def __init__(self) -> None:
        super().__init__()
        self.num_requests = 0

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        answer = super().handle_request(request)
        self.num_requests += 1
        if self.num_requests == 1:
            answer.read()
            answer.close()
            raise httpx2.ReadError("connection lost")
        return answer


def _ask_blocking(sdk: openai.OpenAI) -> str:
    return sdk.responses.create(model="demo", input="Hi").output_text


def _ask_stream(sdk: openai.OpenAI) -> str:
    with sdk.chat.completions.create(model="demo", messages=CHAT_MESSAGES, stream=True) as chunks:  # type: ignore[call-overload]
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def _ask_background(sdk: openai.OpenAI) -> str:
    job_id = sdk.responses.create(model="demo", input="Hi", background=True).id
    return wait_until(lambda: sdk.responses.retrieve(job_id).output_text)


@pytest.mark.parametrize("ask", [_ask_blocking, _ask_stream, _ask_background], ids=["blocking", "stream", "background"])
def test_the_sdk_finds_its_job_when_the_first_answer_is_lost(
    server: Server, worker: FakeWorker, database: Database, ask: Callable[[openai.OpenAI], str]
) -> None:
    network = _LosesTheFirstAnswer()
    with (
        openai.DefaultHttpxClient(transport=network) as http_client,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", http_client=http_client) as sdk,
    ):
        text = ask(sdk)

    assert text == TEXT
    assert network.num_requests >= 2
    assert _job(database).num_attached == 1


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """An address that outlives the process behind it, as that of `tokenpost up` does."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


@contextmanager
def _process(settings: ApiSettings, listener: socket.socket) -> Iterator[subprocess.Popen[bytes]]:
    """An API process of its own behind the listener."""
    environment = {
        **os.environ,
        "TOKENPOST_DATABASE_URL": settings.database_url,
        "TOKENPOST_REDIS_URL": settings.redis_url,
        "TOKENPOST_LOG_LEVEL": "WARNING",
    }
    command = [sys.executable, "-m", "api.server.entry_point", str(listener.fileno())]
    process = subprocess.Popen(command, env=environment, cwd=ROOT, pass_fds=[listener.fileno()])
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)


def test_the_sdk_finds_its_job_after_the_first_process_was_killed(
    settings: ApiSettings, listener: socket.socket, worker: FakeWorker, database: Database
) -> None:
    worker.pauses_at = 3
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    reported: list[str] = []
    with openai.OpenAI(base_url=url, api_key="any", max_retries=2) as sdk:
        asking = threading.Thread(target=lambda: reported.append(_ask_blocking(sdk)))
        with _process(settings, listener) as first:
            asking.start()
            wait_until(lambda: worker.num_claimed == 1, 30)
            first.send_signal(signal.SIGKILL)
            first.wait(10)
        with _process(settings, listener):
            wait_until(lambda: _job(database).num_attached == 1, 30)
            worker.go.set()
            asking.join(30)

    assert reported == [TEXT]
    assert worker.num_claimed == 1


def _num_readers(server: Server) -> int:
    return server.app.state.jobs.streaming.relay.num_readers  # type: ignore[no-any-return]  # a plain attribute


def _bearer_of(key: keys.NewKey) -> dict[str, str]:
    return {"authorization": f"Bearer {key.plaintext}"}
