"""Clients that leave, and servers that go."""

import json
import socket
import threading

import httpx2
import pytest
import redis

from api.app import begin_shutdown
from storage.broker.event_log import control_channel, decode_cancel
from storage.contract import JobStatus
from storage.database.connections import Database
from storage.jobs import jobs
from tests.api.examples import CALLS, NAMES, RESPONSE, Call
from tests.api.fake_worker import WORKER_ID, FakeWorker
from tests.api.server import Server
from tests.waiting import wait_until


def _call_and_leave(server: Server, worker: FakeWorker, path: str, body: dict[str, object]) -> None:
    """Post, wait until the job runs, and hang up."""
    data = json.dumps(body).encode()
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(
            b"POST %b HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
            % (path.encode(), len(data), data)
        )
        wait_until(lambda: worker.num_claimed == 1)


def _status(database: Database) -> JobStatus:
    with database.connect() as c:
        [job] = jobs.list_all(c)
    return job.status


@pytest.mark.parametrize("is_stream", [True, False], ids=["stream", "blocking"])
@pytest.mark.parametrize("call", CALLS, ids=NAMES)
def test_who_leaves_a_foreground_call_stops_its_job(
    server: Server, worker: FakeWorker, database: Database, call: Call, is_stream: bool
) -> None:
    worker.pauses_at = 3

    _call_and_leave(server, worker, call.path, {**call.body, "stream": is_stream})

    wait_until(lambda: _status(database) is JobStatus.CANCELLED, 1.0, "the cancellation")


def test_the_worker_learns_of_a_caller_who_left(server: Server, worker: FakeWorker, redis_client: redis.Redis) -> None:
    worker.pauses_at = 3
    with redis_client.pubsub(ignore_subscribe_messages=True) as control:
        control.subscribe(control_channel(WORKER_ID))
        _call_and_leave(server, worker, RESPONSE.path, {**RESPONSE.body, "stream": True})

        message = wait_until(lambda: control.get_message(timeout=0.1), 2.0, "a control message")

    assert decode_cancel(message["data"]).startswith("resp_")


def test_who_leaves_a_background_stream_stops_nothing(
    server: Server, worker: FakeWorker, database: Database, http: httpx2.Client
) -> None:
    worker.pauses_at = 3

    _call_and_leave(server, worker, RESPONSE.path, {**RESPONSE.body, "stream": True, "background": True})
    _wait_unfollowed(server)
    worker.go.set()

    wait_until(lambda: _status(database) is JobStatus.COMPLETED)


def test_a_second_reader_who_leaves_stops_nothing(
    server: Server, worker: FakeWorker, database: Database, http: httpx2.Client
) -> None:
    worker.pauses_at = 3
    with http.stream("POST", RESPONSE.path, json={**RESPONSE.body, "stream": True}) as answer:
        url = RESPONSE.url_of(answer.headers["x-job-id"])
        with http.stream("GET", url, params={"stream": "true"}) as second:
            next(second.iter_bytes())
        wait_until(lambda: _num_followers(server) == 1)
        worker.go.set()
        live = answer.read()

    assert live.endswith(b"data: [DONE]\n\n")
    assert _status(database) is JobStatus.COMPLETED


def test_a_request_whose_job_is_cancelled_is_answered_so(http: httpx2.Client, worker: FakeWorker) -> None:
    worker.pauses_at = 3
    answers: list[httpx2.Response] = []
    for call in CALLS:
        caller = threading.Thread(target=lambda call=call: answers.append(call.post(http)))
        caller.start()
        wait_until(lambda: worker.num_claimed == len(answers) + 1)
        job_id = _newest_job(worker)
        http.delete(call.url_of(job_id))
        caller.join(10)

    assert [answer.status_code for answer in answers] == [200, 409, 409]
    assert answers[0].json()["status"] == "cancelled"
    assert answers[1].json()["error"]["code"] == "cancelled"


@pytest.mark.parametrize("call", CALLS, ids=NAMES)
def test_a_server_that_goes_ends_streams_and_leaves_the_jobs_alone(
    server: Server, http: httpx2.Client, worker: FakeWorker, database: Database, call: Call
) -> None:
    worker.pauses_at = 3
    with http.stream("POST", call.path, json={**call.body, "stream": True}) as answer:
        wait_until(lambda: worker.num_claimed == 1)
        server.call(begin_shutdown, server.app)
        rest = answer.read()
    refused = call.post(http)
    worker.go.set()

    assert b'"code":"shutting_down"' in rest
    assert rest.endswith(b"data: [DONE]\n\n")
    assert refused.status_code == 503
    assert refused.headers["retry-after"]
    with database.connect() as c:
        first = jobs.list_all(c)[-1]
    assert first.status in (JobStatus.IN_PROGRESS, JobStatus.COMPLETED)


def _newest_job(worker: FakeWorker) -> str:
    with worker.database.connect() as c:
        return jobs.list_all(c)[0].id


def _num_followers(server: Server) -> int:
    return server.app.state.jobs.streaming.relay.num_readers  # type: ignore[no-any-return]  # a plain attribute


def _wait_unfollowed(server: Server) -> None:
    wait_until(lambda: _num_followers(server) == 0, 2.0, "the end of the stream")
