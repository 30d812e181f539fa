"""A job that waits tells its place: in its object, in receipts, in streams."""

import time
from datetime import UTC, datetime, timedelta

import httpx2
import openai
import pytest
from sqlalchemy import Connection, update

from storage.contract import WorkerStatus
from storage.database.table_definitions import table_of
from storage.fleet import workers
from storage.fleet.tables import Worker
from storage.fleet.workers import NewWorker
from storage.jobs import jobs
from tests.api.examples import CALLS, NAMES, RESPONSE, Call, frames_of, without_heartbeats
from tests.api.fake_worker import FakeWorker
from tests.api.server import Server
from tests.storage.examples import put_job
from tests.waiting import wait_until

POLL = "openai-poll-after-ms"


@pytest.fixture
def busy(server: Server, worker: FakeWorker) -> None:
    """The only worker is gone, and another one, which takes nothing, runs as much as it can."""
    worker.die()
    now = datetime.now(UTC)
    new = NewWorker(worker_id="busy", model="demo", pid=1, host="h", device="cpu", dtype="float32", slots=1)
    with worker.database.begin() as c:
        workers.register(c, new, now)
        workers.set_status(c, "busy", WorkerStatus.READY)
        _tell(c, 0, now)
        assert jobs.claim(c, put_job(c), "busy", now)
    statistics = server.app.state.jobs.statistics
    wait_until(
        lambda: (statistics.capacity_of("demo").num_free, statistics.capacity_of("demo").jobs_per_s > 0) == (0, True)
    )


@pytest.fixture
def paced(busy: None, server: Server, worker: FakeWorker) -> None:
    """It is known that the other one takes five seconds for a job."""
    with worker.database.begin() as c:
        # Three in ten seconds, beside the one in ten that is assumed for a worker of one place.
        [reported] = [one for one in workers.list_workers(c) if one.id == "busy"]
        _tell(c, 3, reported.updated_at + timedelta(seconds=10))
    statistics = server.app.state.jobs.statistics
    wait_until(lambda: statistics.capacity_of("demo").jobs_per_s == pytest.approx(0.2))


def _tell(c: Connection, num_ended: int, now: datetime) -> None:
    """What the busy one says with a beat at that moment."""
    workers.beat(c, "busy", 1, {"num_jobs_ended": num_ended})
    table = table_of(Worker)
    c.execute(update(table).where(table.c.id == "busy").values(updated_at=now))


def _put(http: httpx2.Client, call: Call) -> httpx2.Response:
    if call is RESPONSE:
        return call.post(http, background=True)
    return call.post(http, {"prefer": "respond-async"})


def _position(answer: httpx2.Response) -> int | None:
    queue = answer.json().get("tokenpost_queue")
    return None if queue is None else queue["position"]


@pytest.mark.usefixtures("paced")
@pytest.mark.parametrize("call", CALLS, ids=NAMES)
def test_a_queued_job_tells_its_place_and_when_it_may_begin(http: httpx2.Client, call: Call) -> None:
    answers = [_put(http, call) for _ in range(3)]
    found = [http.get(call.url_of(answer.json()["id"])) for answer in answers]

    assert [_position(answer) for answer in found] == [1, 2, 3]
    for index, answer in enumerate(found):
        starts_in_s = answer.json()["tokenpost_queue"]["estimated_start_at"] - time.time()
        assert 5 * index < starts_in_s <= 5 * (index + 1) + 1
    # At its creation a job gets the position of the last snapshot, which is no more than there are.
    for index, answer in enumerate(answers):
        assert 1 <= (_position(answer) or 0) <= index + 1
        assert int(answer.headers[POLL]) >= 2500
    assert [int(answer.headers[POLL]) for answer in found] == [2500, 5000, 7500]


@pytest.mark.usefixtures("busy")
def test_before_throughput_is_measured_a_job_shows_its_queue_position_alone(http: httpx2.Client) -> None:
    made = _put(http, RESPONSE)
    found = http.get(RESPONSE.url_of(made.json()["id"]))

    for answer in (made, found):
        assert answer.json()["tokenpost_queue"] == {"position": 1, "estimated_start_at": None}
        assert answer.headers[POLL] == "5000"


def test_a_job_of_a_model_that_nobody_serves_waits_for_nobody_knows_how_long(
    http: httpx2.Client, worker: FakeWorker, server: Server
) -> None:
    worker.die()
    wait_until(lambda: not server.app.state.jobs.statistics.capacity_of("demo").jobs_per_s)

    answer = _put(http, RESPONSE)

    assert answer.json()["tokenpost_queue"] == {"position": 1, "estimated_start_at": None}
    assert answer.headers[POLL] == "5000"


@pytest.mark.parametrize("call", CALLS, ids=NAMES)
def test_one_that_runs_is_asked_for_soon_and_one_that_ended_no_more(
    http: httpx2.Client, worker: FakeWorker, call: Call
) -> None:
    worker.pauses_at = 2
    url = call.url_of(_put(http, call).json()["id"])
    wait_until(lambda: worker.num_claimed == 1)

    running = http.get(url)
    worker.go.set()
    wait_until(lambda: worker.num_finished == 1)
    ended = http.get(url)

    assert (running.headers[POLL], _position(running)) == ("500", None)
    assert (POLL in ended.headers, _position(ended)) == (False, None)


@pytest.mark.usefixtures("paced")
def test_the_asynchronous_alias_and_a_wait_that_was_too_short_tell_it_too(http: httpx2.Client) -> None:
    accepted = http.post("/v1/async/completions", json={"model": "demo", "prompt": "Hi"})
    waited = CALLS[1].post(http, {"prefer": "wait=1"})

    assert (_position(accepted), _position(http.get(accepted.headers["location"]))) == (1, 1)
    assert (waited.status_code, _position(waited), waited.headers[POLL]) == (202, 2, "5000")


@pytest.mark.usefixtures("paced")
def test_a_stream_gets_its_queue_position_in_comments_until_its_job_begins(http: httpx2.Client) -> None:
    first = _put(http, RESPONSE).json()["id"]
    body = {**RESPONSE.body, "background": True, "stream": True}
    with http.stream("POST", RESPONSE.path, json=body) as answer:
        lines = answer.iter_lines()
        assert next(line for line in lines if line.startswith(":")) == ": queue position 2, starts in about 10 s"

        http.post(f"{RESPONSE.path}/{first}/cancel")

        assert next(line for line in lines if line.startswith(":")) == ": queue position 1, starts in about 5 s"


@pytest.mark.usefixtures("paced")
def test_a_replay_of_a_queued_job_gets_its_queue_position_and_the_same_frames(http: httpx2.Client) -> None:
    job_id = _put(http, RESPONSE).json()["id"]
    pieces = []
    with http.stream("GET", f"{RESPONSE.path}/{job_id}?stream=true") as answer:
        for piece in answer.iter_bytes():
            pieces.append(piece)
            if b": queue position 1" in piece:
                http.post(f"{RESPONSE.path}/{job_id}/cancel")
    stream = b"".join(pieces)

    again = http.get(f"{RESPONSE.path}/{job_id}?stream=true").content
    assert b": queue position 1, starts in about 5 s\n" in stream
    assert without_heartbeats(stream) == without_heartbeats(again)
    assert frames_of(again)[-1] == b"data: [DONE]\n\n"


@pytest.mark.usefixtures("busy")
def test_the_sdk_reads_objects_and_streams_of_those_who_wait(client: openai.OpenAI) -> None:
    made = client.responses.create(model="demo", input="Hi", background=True)
    assert made.status == "queued"
    assert made.model_extra is not None
    assert made.model_extra["tokenpost_queue"]["position"] == 1

    stream = client.responses.create(model="demo", input="Hi", background=True, stream=True)

    assert [next(stream).type for _ in range(2)] == ["response.created", "response.queued"]
    stream.close()
