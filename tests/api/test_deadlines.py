"""Deadlines that a caller sets, and how their passing is reported."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import httpx2
import openai
import pytest
from sqlalchemy import update

from storage.database.connections import Database
from storage.database.table_definitions import table_of
from storage.jobs import deadlines, jobs
from storage.jobs.records import JobRecord
from storage.jobs.tables import Job
from tests.api.examples import CALLS, NAMES, RESPONSE, Call, frames_of
from tests.api.fake_worker import FakeWorker
from tests.api.server import Server, set_clock
from tests.waiting import wait_until


def _job(database: Database) -> JobRecord:
    with database.connect() as c:
        [summary] = jobs.list_all(c)
        return jobs.get(c, summary.id, summary.owner)


@pytest.mark.parametrize("call", CALLS, ids=NAMES)
def test_deadlines_count_from_the_jobs_creation(http: httpx2.Client, database: Database, call: Call) -> None:
    answer = call.post(http, {"Cancel-After": "5m"}, expires_after={"anchor": "created_at", "seconds": 60})

    assert answer.status_code == 200
    job = _job(database)
    assert (job.expires_at, job.cancel_at) == (
        job.created_at + timedelta(seconds=60),
        job.created_at + timedelta(minutes=5),
    )


@pytest.mark.parametrize(("header", "seconds"), [("30", 30), ("45s", 45), ("1h", 3600), ("720h", 30 * 86400)])
def test_a_cancel_after_has_a_unit(http: httpx2.Client, database: Database, header: str, seconds: int) -> None:
    RESPONSE.post(http, {"cancel-after": header})

    job = _job(database)
    assert job.cancel_at == job.created_at + timedelta(seconds=seconds)


@pytest.mark.parametrize("header", ["0", "-1", "721h", "1d", "1.5h", "", "soon", "9" * 30, "5 m"])
def test_a_wrong_cancel_after_is_refused(http: httpx2.Client, header: str) -> None:
    answer = RESPONSE.post(http, {"cancel-after": header})

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "Cancel-After"


@pytest.mark.parametrize("seconds", [3600, -3600])
def test_deadlines_pass_in_time_though_the_clock_of_the_api_is_wrong(
    http: httpx2.Client, server: Server, database: Database, seconds: int
) -> None:
    set_clock(server, seconds)

    RESPONSE.post(http, {"Cancel-After": "5m"}, expires_after=60)

    job, now = _job(database), datetime.now(UTC)
    assert job.expires_at is not None
    assert job.cancel_at is not None
    assert 30 < (job.expires_at - now).total_seconds() <= 60
    assert 270 < (job.cancel_at - now).total_seconds() <= 300


def _let_expire(database: Database) -> None:
    """What time and the sweeper do."""
    now = datetime.now(UTC)
    with database.begin() as c:
        c.execute(update(table_of(Job)).values(expires_at=now - timedelta(seconds=1)))
        assert len(deadlines.end_overdue(c, now)) == 1


def test_a_stream_tells_that_its_job_expired(http: httpx2.Client, worker: FakeWorker, database: Database) -> None:
    worker.pauses_at = 3
    with http.stream("POST", RESPONSE.path, json={**RESPONSE.body, "stream": True, "expires_after": 60}) as answer:
        wait_until(lambda: worker.num_claimed == 1)
        _let_expire(database)
        frames = frames_of(answer.read())

    assert frames[-1] == b"data: [DONE]\n\n"
    reported, last = (json.loads(frame.partition(b"data: ")[2]) for frame in frames[-3:-1])
    assert (reported["type"], reported["code"]) == ("error", "expired")
    assert last["type"] == "response.failed"
    assert last["response"]["output"][0]["content"][0]["text"]


@pytest.mark.parametrize("call", CALLS, ids=NAMES)
def test_a_call_that_waits_is_answered_as_by_a_gateway_whose_time_is_over(
    http: httpx2.Client, worker: FakeWorker, database: Database, call: Call
) -> None:
    worker.pauses_at = 3
    with ThreadPoolExecutor(1) as caller:
        answering = caller.submit(call.post, http, expires_after=60)
        wait_until(lambda: worker.num_claimed == 1)
        _let_expire(database)
        answer = answering.result()

    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "expired")
    assert answer.headers["x-should-retry"] == "false"
    assert http.get(call.url_of(answer.headers["x-job-id"])).json()["status"] == "failed"


def test_a_caller_who_asks_learns_that_the_job_expired(
    client: openai.OpenAI, worker: FakeWorker, database: Database
) -> None:
    worker.pauses_at = 3
    made = client.responses.create(model="demo", input="Hi", background=True, extra_body={"expires_after": 60})
    wait_until(lambda: worker.num_claimed == 1)

    _let_expire(database)

    found = wait_until(lambda: one if (one := client.responses.retrieve(made.id)).status == "failed" else None)
    assert found.error is not None
    assert found.error.message == deadlines.EXPIRED.message
