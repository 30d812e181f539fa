"""A call with an `Idempotency-Key` makes one job, however often and wherever it is sent."""

import sqlite3
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import openai
import pytest
from sqlalchemy import update

from storage.accounts import keys
from storage.accounts.tables import IdempotencyKey
from storage.contract import Failure, JobStatus
from storage.database.connections import Database
from storage.database.table_definitions import table_of
from storage.jobs import jobs
from tests.api.examples import CALLS, CHAT, COMPLETION, NAMES, RESPONSE, Call, without_heartbeats
from tests.api.fake_worker import FakeWorker
from tests.api.server import Server
from tests.waiting import wait_until

PEPPER = b"pepper-of-a-test"

KEY = {"idempotency-key": "order-4711"}
REPLAYED = "idempotent-replayed"


def _num_jobs(database: Database) -> int:
    with database.connect() as c:
        return len(jobs.list_all(c))


def _assert_replayed(first: httpx2.Response, again: httpx2.Response) -> None:
    assert first.status_code == again.status_code
    assert REPLAYED not in first.headers
    assert again.headers[REPLAYED] == "true"
    assert again.headers["x-job-id"] == first.headers["x-job-id"]
    assert again.headers["content-type"] == first.headers["content-type"]


@pytest.mark.parametrize("call", CALLS, ids=NAMES)
def test_a_blocking_call_is_answered_again(http: httpx2.Client, worker: FakeWorker, call: Call) -> None:
    first, again, third = (call.post(http, KEY) for _ in range(3))

    _assert_replayed(first, again)
    _assert_replayed(first, third)
    assert first.content == again.content == third.content
    assert worker.num_claimed == 1


@pytest.mark.parametrize("call", CALLS, ids=NAMES)
def test_a_stream_is_replayed_from_its_start(http: httpx2.Client, worker: FakeWorker, call: Call) -> None:
    first, again = (call.post(http, KEY, stream=True) for _ in range(2))

    _assert_replayed(first, again)
    assert without_heartbeats(first.content) == without_heartbeats(again.content)
    assert worker.num_claimed == 1


@pytest.mark.parametrize(("path", "call"), [("/v1/streaming/completions", COMPLETION), ("/v1/streaming/chat", CHAT)])
def test_a_streaming_alias_replays(http: httpx2.Client, worker: FakeWorker, path: str, call: Call) -> None:
    first, again = (http.post(path, json=call.body, headers=KEY) for _ in range(2))

    _assert_replayed(first, again)
    assert without_heartbeats(first.content) == without_heartbeats(again.content)
    assert worker.num_claimed == 1


def test_a_background_response_is_shown_as_it_is_by_then(http: httpx2.Client, worker: FakeWorker) -> None:
    worker.pauses_at = 3
    first = RESPONSE.post(http, KEY, background=True)
    wait_until(lambda: "Hello" in http.get(RESPONSE.url_of(first.json()["id"])).text)
    meanwhile = RESPONSE.post(http, KEY, background=True)
    worker.go.set()
    wait_until(lambda: http.get(RESPONSE.url_of(first.json()["id"])).json()["status"] == "completed")
    afterwards = RESPONSE.post(http, KEY, background=True)

    for again in (meanwhile, afterwards):
        _assert_replayed(first, again)
    assert [answer.json()["status"] for answer in (first, meanwhile, afterwards)] == [
        "queued",
        "in_progress",
        "completed",
    ]
    assert afterwards.json() == http.get(RESPONSE.url_of(first.json()["id"])).json()
    assert worker.num_claimed == 1


def test_an_asynchronous_completion_has_one_receipt(http: httpx2.Client, worker: FakeWorker) -> None:
    path, body = "/v1/async/completions", COMPLETION.body
    first = http.post(path, json=body, headers=KEY)
    wait_until(lambda: http.get(first.headers["location"]).json()["object"] == "text_completion")
    again = http.post(path, json=body, headers=KEY)

    _assert_replayed(first, again)
    assert again.status_code == 202
    assert again.headers["location"] == first.headers["location"]
    assert (first.json()["status"], again.json()["status"]) == ("queued", "completed")
    assert worker.num_claimed == 1


@pytest.mark.parametrize("call", CALLS, ids=NAMES)
@pytest.mark.parametrize("prefer", ["respond-async", "wait=20"])
def test_a_preference_is_followed_again(http: httpx2.Client, worker: FakeWorker, call: Call, prefer: str) -> None:
    first, again = (call.post(http, {**KEY, "prefer": prefer}) for _ in range(2))

    _assert_replayed(first, again)
    assert again.headers["preference-applied"] == prefer
    assert again.headers.get("location") == first.headers.get("location")
    wait_until(lambda: worker.num_finished == 1)
    assert worker.num_claimed == 1


@pytest.mark.parametrize("call", CALLS, ids=NAMES)
def test_a_failure_is_replayed(http: httpx2.Client, worker: FakeWorker, call: Call) -> None:
    worker.failure = Failure(code="numerical_error", message="The logits were not finite.")

    first, again = call.post(http, KEY), call.post(http, KEY)

    assert first.status_code == 500
    _assert_replayed(first, again)
    assert first.json() == again.json()
    assert worker.num_claimed == 1


@pytest.mark.parametrize("is_stream", [True, False], ids=["stream", "blocking"])
def test_callers_of_a_running_job_at_two_processes_get_the_same(
    http: httpx2.Client, elsewhere: httpx2.Client, worker: FakeWorker, is_stream: bool
) -> None:
    worker.pauses_at = 4
    answers = _at_once(
        lambda: CHAT.post(http, KEY, stream=is_stream), wait_for=lambda: worker.num_claimed == 1
    ) + _at_once(
        lambda: CHAT.post(http, KEY, stream=is_stream),
        lambda: CHAT.post(elsewhere, KEY, stream=is_stream),
        wait_for=lambda: _num_attached(worker) == 2,
    )
    worker.go.set()
    first, here, there = (answer() for answer in answers)

    for again in (here, there):
        _assert_replayed(first, again)
        assert without_heartbeats(again.content) == without_heartbeats(first.content)
    assert worker.num_claimed == 1


def test_of_calls_at_once_at_two_processes_one_makes_the_job(
    http: httpx2.Client, elsewhere: httpx2.Client, worker: FakeWorker, database: Database
) -> None:
    answers = [
        answer()
        for answer in _at_once(*(lambda at=at: CHAT.post(at, KEY) for _ in range(4) for at in (http, elsewhere)))
    ]

    assert {answer.status_code for answer in answers} <= {200, 409}
    done = [answer for answer in answers if answer.status_code == 200]
    assert len({answer.headers["x-job-id"] for answer in done}) == 1
    assert sum(REPLAYED not in answer.headers for answer in done) == 1
    assert _num_jobs(database) == worker.num_claimed == 1


@pytest.mark.parametrize("call", CALLS, ids=NAMES)
def test_while_the_first_is_being_accepted_the_second_gets_retry_after(
    http: httpx2.Client, sqlite_url: str, server: Server, call: Call
) -> None:
    with sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        [first] = _at_once(lambda: call.post(http, KEY), wait_for=lambda: _is_accepting(server))
        busy = call.post(http, KEY)
        other = call.post(http, KEY, temperature=0.5)
        holder.execute("ROLLBACK")

    assert busy.status_code == 409
    assert busy.json()["error"]["code"] == "idempotency_key_in_use"
    assert busy.headers["retry-after"] == "1"
    assert "x-should-retry" not in busy.headers
    assert other.status_code == 422
    assert first().status_code == 200
    _assert_replayed(first(), call.post(http, KEY))


def test_the_sdk_retries_until_the_first_is_accepted(server: Server, worker: FakeWorker, sqlite_url: str) -> None:
    with (
        sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None) as holder,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=2) as sdk,
    ):

        def ask() -> object:
            return sdk.responses.create(model="demo", input="Hi", extra_headers=KEY)

        holder.execute("BEGIN EXCLUSIVE")
        [first] = _at_once(ask, wait_for=lambda: _is_accepting(server))
        [second] = _at_once(ask)
        holder.execute("ROLLBACK")

        assert first() == second()
    assert worker.num_claimed == 1


@pytest.mark.parametrize("call", CALLS, ids=NAMES)
def test_another_body_or_path_under_a_key_is_refused(http: httpx2.Client, worker: FakeWorker, call: Call) -> None:
    call.post(http, KEY)
    others = {other.path: other.body for other in CALLS if other != call} | {call.path: {**call.body, "seed": 1}}

    for path, body in others.items():
        refused = http.post(path, json=body, headers=KEY)
        assert refused.status_code == 422
        assert refused.json()["error"]["code"] == "idempotency_key_reused"
        assert refused.json()["error"]["param"] == "Idempotency-Key"
        assert REPLAYED not in refused.headers
    assert worker.num_claimed == 1


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "ü", "a\tb"])
def test_a_malformed_key_is_refused_by_name(http: httpx2.Client, worker: FakeWorker, key: str) -> None:
    for path in (*(call.path for call in CALLS), "/v1/async/completions", "/v1/streaming/chat"):
        refused = http.post(path, json=RESPONSE.body, headers=[("idempotency-key", key.encode("latin-1"))])  # type: ignore[list-item]  # bytes pass
        assert refused.status_code == 400
        assert refused.json()["error"]["param"] == "Idempotency-Key"
    twice = http.post(CHAT.path, json=CHAT.body, headers=[("idempotency-key", "a"), ("idempotency-key", "b")])
    assert twice.status_code == 400
    assert worker.num_claimed == 0


def test_the_interface_names_the_header_where_something_is_made(http: httpx2.Client) -> None:
    interface = http.get("/openapi.json").json()

    with_key = {
        path
        for path, operations in interface["paths"].items()
        for operation in operations.values()
        if any(
            _resolved(interface, parameter)["name"] == "Idempotency-Key"
            for parameter in operation.get("parameters", [])
        )
    }
    assert with_key == {
        *(call.path for call in CALLS),
        "/v1/async/completions",
        "/v1/batches",
        "/v1/batches/{batch_id}/retry",
        "/v1/conversations",
        "/v1/conversations/{conversation_id}/items",
        "/v1/embeddings",
        "/v1/rerank",
        "/v1/score",
        "/v1/streaming/chat",
        "/v1/streaming/completions",
        "/v1/webhook_endpoints",
    }


def _resolved(interface: dict[str, Any], parameter: dict[str, Any]) -> dict[str, Any]:
    """The parameter itself, where it is a reference to one of the components."""
    if "$ref" not in parameter:
        return parameter
    place, _, name = parameter["$ref"].rpartition("/")
    assert place == "#/components/parameters"
    found: dict[str, Any] = interface["components"]["parameters"][name]
    return found


def test_the_longest_key_is_kept(http: httpx2.Client) -> None:
    longest = {"idempotency-key": "~" * 255}

    _assert_replayed(CHAT.post(http, longest), CHAT.post(http, longest))


def test_a_refused_call_leaves_its_key_free(http: httpx2.Client) -> None:
    refused = CHAT.post(http, KEY, temperature=99)

    assert refused.status_code == 400
    assert CHAT.post(http, KEY).status_code == 200


def test_a_key_is_of_its_owner(server: Server, http: httpx2.Client, database: Database, worker: FakeWorker) -> None:
    with database.begin() as c:
        alice, bob = (
            _bearer_of(keys.create(c, owner, pepper=PEPPER, now=datetime.now(UTC))) for owner in ("alice", "bob")
        )
    wait_until(lambda: http.get("/v1/models").status_code == 401)

    first, others = CHAT.post(http, KEY | alice), CHAT.post(http, KEY | bob)

    assert REPLAYED not in others.headers
    assert first.headers["x-job-id"] != others.headers["x-job-id"]
    _assert_replayed(first, CHAT.post(http, KEY | alice))
    _assert_replayed(others, CHAT.post(http, KEY | bob))
    assert worker.num_claimed == 2


@pytest.mark.parametrize("call", CALLS, ids=NAMES)
def test_an_erased_job_frees_its_key(http: httpx2.Client, worker: FakeWorker, call: Call) -> None:
    first = call.post(http, KEY)
    assert http.delete(call.url_of(first.headers["x-job-id"])).status_code == 200
    again = call.post(http, KEY)

    assert again.status_code == 200
    assert REPLAYED not in again.headers
    assert again.headers["x-job-id"] != first.headers["x-job-id"]
    assert worker.num_claimed == 2


def test_an_expired_key_is_free(http: httpx2.Client, worker: FakeWorker, database: Database) -> None:
    first = CHAT.post(http, KEY)
    with database.begin() as c:
        kept = c.execute(table_of(IdempotencyKey).select()).one()
        c.execute(update(table_of(IdempotencyKey)).values(expires_at=datetime.now(UTC)))
    again = CHAT.post(http, KEY)

    assert kept.expires_at - kept.created_at == timedelta(days=1)
    assert REPLAYED not in again.headers
    assert again.headers["x-job-id"] != first.headers["x-job-id"]
    _assert_replayed(again, CHAT.post(http, KEY))


def test_a_replay_needs_no_worker(http: httpx2.Client, worker: FakeWorker) -> None:
    first = CHAT.post(http, KEY)
    worker.die()

    _assert_replayed(first, CHAT.post(http, KEY))


def test_a_cancelled_background_response_stays_under_its_key(http: httpx2.Client, worker: FakeWorker) -> None:
    worker.pauses_at = 3
    first = RESPONSE.post(http, KEY, background=True)
    wait_until(lambda: worker.num_claimed == 1)
    http.post(f"{RESPONSE.url_of(first.json()['id'])}/cancel")
    again = RESPONSE.post(http, KEY, background=True)

    _assert_replayed(first, again)
    assert again.json()["status"] == JobStatus.CANCELLED


def _num_attached(worker: FakeWorker) -> int:
    with worker.database.connect() as c:
        return jobs.list_all(c)[0].num_attached


def _is_accepting(server: Server) -> bool:
    return bool(server.app.state.jobs.idempotency_keys_in_flight._digest_by_key)


def _at_once(*asks: Callable[[], object], wait_for: Callable[[], object] = lambda: True):  # type: ignore[no-untyped-def]
    """Begin every call in a thread of its own; each result is had by calling what is returned."""
    answers: list[list[object]] = [[] for _ in asks]
    threads = [
        threading.Thread(target=lambda ask=ask, answer=answer: answer.append(ask()), daemon=True)  # type: ignore[misc]
        for ask, answer in zip(asks, answers, strict=True)
    ]
    for thread in threads:
        thread.start()
    wait_until(wait_for)

    def result(thread: threading.Thread, answer: list[object]) -> object:
        thread.join(20)
        return answer[0]

    return [
        lambda thread=thread, answer=answer: result(thread, answer)
        for thread, answer in zip(threads, answers, strict=True)
    ]


def _bearer_of(key: keys.NewKey) -> dict[str, str]:
    return {"authorization": f"Bearer {key.plaintext}"}
