"""Live, replayed or resumed, from log or row, from any process: the same bytes."""

import threading

import httpx2
import pytest
import redis

from storage.broker.event_log import log_key
from tests.api.examples import CALLS, NAMES, Call, frames_of, without_heartbeats
from tests.api.fake_worker import FakeWorker
from tests.api.server import Server
from tests.waiting import wait_until


@pytest.fixture(autouse=True)
def impatient_relay(server: Server) -> None:
    """Looks after silent streams sooner than after two seconds."""
    server.app.state.jobs.streaming.relay.silence_s = 0.2


def _streamed(http: httpx2.Client, call: Call, **fields: object) -> tuple[str, bytes]:
    """The id of a job and its live stream."""
    answer = call.post(http, stream=True, stream_options=None, **fields)
    assert answer.status_code == 200, answer.text
    return answer.headers["x-job-id"], without_heartbeats(answer.content)


def _replayed(http: httpx2.Client, call: Call, job_id: str, **query: object) -> bytes:
    answer = http.get(call.url_of(job_id), params={"stream": "true", **query})  # type: ignore[dict-item]
    assert answer.status_code == 200, answer.text
    return without_heartbeats(answer.content)


@pytest.mark.parametrize("call", CALLS, ids=NAMES)
def test_every_tail_is_the_end_of_the_live_stream(http: httpx2.Client, redis_client: redis.Redis, call: Call) -> None:
    job_id, live = _streamed(http, call)
    frames = frames_of(live)
    first = -1 if call.path == "/v1/responses" else 0

    for where in ("row", "log"):
        if where == "row":
            redis_client.delete(log_key(job_id))
        assert _replayed(http, call, job_id) == live
        for num_seen in range(1, len(frames)):
            tail = _replayed(http, call, job_id, starting_after=first + num_seen)
            assert tail == b"".join(frames[num_seen:]), (where, num_seen)
    assert _replayed(http, call, job_id, starting_after=10_000) == b"data: [DONE]\n\n"


@pytest.mark.parametrize("call", CALLS, ids=NAMES)
def test_readers_of_a_running_job_see_the_same_bytes(
    http: httpx2.Client, elsewhere: httpx2.Client, worker: FakeWorker, call: Call
) -> None:
    worker.pauses_at = 4
    streams: dict[str, bytes] = {}
    with http.stream("POST", call.path, json={**call.body, "stream": True}) as answer:
        job_id = answer.headers["x-job-id"]
        wait_until(lambda: "Hello" in http.get(call.url_of(job_id)).text)
        readers = [
            threading.Thread(target=lambda: streams.__setitem__("here", _replayed(http, call, job_id))),
            threading.Thread(target=lambda: streams.__setitem__("there", _replayed(elsewhere, call, job_id))),
        ]
        for reader in readers:
            reader.start()
        worker.go.set()
        live = without_heartbeats(answer.read())
        for reader in readers:
            reader.join(20)

    assert streams == {"here": live, "there": live}


@pytest.mark.parametrize("call", CALLS, ids=NAMES)
def test_a_log_that_is_lost_while_the_job_runs_costs_no_byte(
    http: httpx2.Client, redis_client: redis.Redis, worker: FakeWorker, call: Call
) -> None:
    worker.pauses_at = 4
    with http.stream("POST", call.path, json={**call.body, "stream": True}) as answer:
        job_id = answer.headers["x-job-id"]
        wait_until(lambda: "Hello" in http.get(call.url_of(job_id)).text)
        redis_client.delete(log_key(job_id))
        late: list[bytes] = []
        reader = threading.Thread(target=lambda: late.append(_replayed(http, call, job_id)))
        reader.start()
        worker.go.set()
        live = without_heartbeats(answer.read())
        reader.join(20)

    # The late reader's log begins in the middle; the row has the rest.
    assert late == [live]


def test_a_job_without_its_end_in_the_log_ends_from_its_row(
    http: httpx2.Client, redis_client: redis.Redis, worker: FakeWorker
) -> None:
    job_id, live = _streamed(http, CALLS[0])
    entries = redis_client.xrange(log_key(job_id))
    redis_client.xdel(log_key(job_id), entries[-1][0])  # type: ignore[index]

    assert _replayed(http, CALLS[0], job_id) == live


def test_a_stream_ends_when_its_worker_never_says_so(
    http: httpx2.Client, redis_client: redis.Redis, worker: FakeWorker
) -> None:
    worker.is_silent_at_the_end = True

    job_id, live = _streamed(http, CALLS[1])

    assert live.endswith(b"data: [DONE]\n\n")
    assert _replayed(http, CALLS[1], job_id) == live
