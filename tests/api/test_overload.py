"""More jobs than may wait: who is refused, how, and what is left of it."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import httpx2
import openai
import pytest

from api.settings import ApiSettings
from storage.derived import queue_counts
from storage.jobs import jobs
from tests.api.examples import CALLS, CHAT, COMPLETION, RESPONSE, Call
from tests.api.fake_worker import FakeWorker
from tests.api.server import Server, serving
from tests.waiting import wait_until


@pytest.fixture
def settings(database_url: str, redis_url: str) -> ApiSettings:
    """Few may wait."""
    return ApiSettings(
        database_url=database_url,
        redis_url=redis_url,
        pepper="pepper-of-a-test",
        refresh_s=0.05,
        max_queued_per_model=3,
    )


@pytest.fixture
def server(settings: ApiSettings, worker: FakeWorker) -> Iterator[Server]:
    """An API whose only worker is gone."""
    with serving(settings) as running:
        worker.die()
        wait_until(lambda: running.app.state.jobs.statistics.capacity_of("demo").num_free == 0)
        yield running


def _post(call: Call, http: httpx2.Client) -> httpx2.Response:
    if call is RESPONSE:
        return call.post(http, background=True)
    return call.post(http, {"prefer": "respond-async"})


def _refresh(server: Server) -> None:
    """Return when the API has counted everything that is in the rows now."""
    done: Future[None] = Future()

    async def refresh() -> None:
        await server.app.state.jobs.statistics.refresh()
        done.set_result(None)

    server.call(lambda: asyncio.ensure_future(refresh()))
    done.result(5)


def _num_rows(worker: FakeWorker) -> int:
    with worker.database.connect() as c:
        return len(jobs.list_all(c))


def test_a_full_model_takes_no_more_jobs_and_says_when_it_will(
    server: Server, http: httpx2.Client, worker: FakeWorker
) -> None:
    for call in CALLS:
        assert _post(call, http).is_success
    _refresh(server)

    for call in CALLS:
        refused = _post(call, http)
        assert refused.status_code == 503
        error = refused.json()["error"]
        assert (error["type"], error["code"], error["param"]) == ("server_error", "overloaded", None)
        assert refused.headers["retry-after"] == "120"
        assert refused.headers["retry-after-ms"] == "120000"
        assert "x-should-retry" not in refused.headers
    assert _num_rows(worker) == 3
    # More urgent ones are counted among themselves.
    assert RESPONSE.post(http, background=True, service_tier="priority").is_success


def test_room_is_noticed(server: Server, http: httpx2.Client) -> None:
    made = [_post(RESPONSE, http).json()["id"] for _ in range(3)]
    _refresh(server)
    assert _post(RESPONSE, http).status_code == 503

    http.post(f"/v1/responses/{made[0]}/cancel")

    wait_until(lambda: _post(RESPONSE, http).is_success)


def test_a_bound_of_one_owner(database_url: str, redis_url: str, worker: FakeWorker) -> None:
    settings = ApiSettings(database_url=database_url, redis_url=redis_url, refresh_s=0.05, max_queued_per_owner=2)
    with (
        serving(settings) as server,
        httpx2.Client(base_url=server.url, trust_env=False) as http,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as client,
    ):
        worker.die()
        wait_until(lambda: server.app.state.jobs.statistics.capacity_of("demo").num_free == 0)
        for call in (CHAT, COMPLETION):
            assert _post(call, http).is_success
        _refresh(server)

        with pytest.raises(openai.RateLimitError) as refusal:
            client.responses.create(model="demo", input="Hi", background=True)

        assert refusal.value.code == "rate_limit_exceeded"
        assert refusal.value.type == "requests"
        assert refusal.value.response.headers["retry-after"] == "120"
        with worker.database.connect() as c:
            assert [one.owner for one in queue_counts.count_waiting(c)] == ["local"]
    assert _num_rows(worker) == 2


def test_jobs_that_are_taken_at_once_are_bounded_by_nothing(
    database_url: str, redis_url: str, worker: FakeWorker
) -> None:
    settings = ApiSettings(
        database_url=database_url, redis_url=redis_url, refresh_s=0.2, max_queued_per_model=2, max_queued_per_owner=2
    )
    with serving(settings) as server, httpx2.Client(base_url=server.url, trust_env=False) as http:
        wait_until(lambda: server.app.state.jobs.statistics.capacity_of("demo").num_free > 0)

        # The eight places of the worker are free, so five jobs wait for nothing.
        assert all(CHAT.post(http).is_success for _ in range(5))


def test_a_retry_of_a_refused_request_is_attached_to_no_other_job(
    server: Server, http: httpx2.Client, worker: FakeWorker
) -> None:
    """Samples of one prompt, one more than may wait."""
    for _ in range(3):
        assert _post(CHAT, http).is_success
    _refresh(server)

    answers = [
        CHAT.post(http, {"prefer": "respond-async", "x-stainless-retry-count": str(count)}) for count in range(3)
    ]

    assert [answer.status_code for answer in answers] == [503] * 3
    assert _num_rows(worker) == 3


def test_what_was_taken_is_found_again_however_many_wait(server: Server, http: httpx2.Client) -> None:
    key = {"prefer": "respond-async", "idempotency-key": "k"}
    first = CHAT.post(http, key)
    for _ in range(2):
        assert _post(CHAT, http).is_success
    _refresh(server)

    assert _post(CHAT, http).status_code == 503
    assert CHAT.post(http, key).headers["x-job-id"] == first.headers["x-job-id"]
    assert CHAT.post(http, {**key, "idempotency-key": "other"}).status_code == 503


def test_calls_that_wait_for_the_names_of_their_receivers_do_not_pass_the_bound(
    server: Server, http: httpx2.Client, worker: FakeWorker
) -> None:
    num_asked, everybody = 0, threading.Event()

    async def resolve(_host: str, _port: int) -> list[str]:
        nonlocal num_asked
        num_asked += 1
        if num_asked == 6:
            everybody.set()
        await asyncio.to_thread(everybody.wait, 5.0)
        return ["1.1.1.1"]

    server.app.state.jobs.webhook_url_check._resolve = resolve

    with ThreadPoolExecutor(6) as callers:
        answers = list(
            callers.map(
                lambda _: RESPONSE.post(http, background=True, webhook={"url": "https://hooks.example/"}), range(6)
            )
        )

    assert sorted(answer.is_success for answer in answers) == [False] * 3 + [True] * 3
    assert _num_rows(worker) == 3
