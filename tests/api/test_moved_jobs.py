"""Moving queued responses, and completion windows, on both databases."""

from typing import Any

import httpx2
import pytest
from sqlalchemy import text

from storage.broker.celery_queue import queue_of
from storage.contract import PriorityQueue
from storage.jobs import jobs, recovery
from tests.api.fake_worker import FakeWorker
from tests.waiting import wait_until

Json = dict[str, Any]


@pytest.fixture
def database_url(each_database_url: str) -> str:
    return each_database_url


def _post(http: httpx2.Client, **fields: object) -> httpx2.Response:
    return http.post("/v1/responses", json={"model": "demo", "input": "Hi", "background": True, **fields})


def _queued(http: httpx2.Client, worker: FakeWorker, **fields: object) -> str:
    worker.die()
    made: str = _post(http, **fields).json()["id"]
    return made


def _row(worker: FakeWorker, job_id: str) -> tuple[PriorityQueue, int]:
    with worker.database.connect() as c:
        job = jobs.find(c, job_id)
        assert job is not None
        spec = jobs.get_spec(c, job_id)
    return job.priority_queue, spec.priority


@pytest.mark.parametrize(
    ("wanted", "tier", "row"),
    [
        ({"service_tier": "priority"}, "priority", (PriorityQueue.PRIORITY, -10)),
        ({"priority": 3}, "default", (PriorityQueue.FRONT, 3)),
        ({"priority": 30, "service_tier": "flex"}, "flex", (PriorityQueue.BACK, 30)),
        ({"service_tier": "default"}, "default", (PriorityQueue.BACK, 10)),
    ],
)
def test_a_queued_response_is_moved(
    http: httpx2.Client, worker: FakeWorker, wanted: Json, tier: str, row: tuple[PriorityQueue, int]
) -> None:
    job_id = _queued(http, worker, service_tier="flex")

    moved = http.post(f"/v1/responses/{job_id}", json=wanted).json()

    assert (moved["id"], moved["status"], moved["service_tier"]) == (job_id, "queued", tier)
    read = http.get(f"/v1/responses/{job_id}").json()
    # A start may be estimated by now.
    assert moved.pop("tokenpost_queue")["position"] == read.pop("tokenpost_queue")["position"] == 1
    assert moved == read
    assert _row(worker, job_id) == row
    with worker.database.connect() as c:
        counts = c.execute(text("SELECT priority_queue, sum(num_jobs) FROM queue_count GROUP BY 1")).all()
    assert [tuple(one) for one in counts if one[1]] == [(row[0].value, 1)]


def test_a_moved_response_gets_a_ticket_in_its_new_queue(
    http: httpx2.Client, worker: FakeWorker, redis_client: Any
) -> None:
    job_id = _queued(http, worker)
    redis_client.flushall()

    http.post(f"/v1/responses/{job_id}", json={"service_tier": "priority"})

    wait_until(lambda: redis_client.llen(queue_of("demo", PriorityQueue.PRIORITY)) == 1)
    # In its own queue it needs none.
    http.post(f"/v1/responses/{job_id}", json={"priority": -20})
    http.post(f"/v1/responses/{job_id}", json={"priority": 0})
    wait_until(lambda: redis_client.llen(queue_of("demo", PriorityQueue.FRONT)) == 1)
    assert redis_client.llen(queue_of("demo", PriorityQueue.PRIORITY)) == 1


def test_only_queued_responses_are_moved(http: httpx2.Client, worker: FakeWorker) -> None:
    done = http.post("/v1/responses", json={"model": "demo", "input": "Hi"}).json()["id"]
    worker.go.clear()
    worker.pauses_at = 2
    running = _post(http).json()["id"]
    wait_until(lambda: http.get(f"/v1/responses/{running}").json()["status"] == "in_progress")

    for job_id in (done, running):
        refused = http.post(f"/v1/responses/{job_id}", json={"priority": 1})
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "conflict")
        assert refused.headers["x-should-retry"] == "false"
    assert http.post("/v1/responses/resp_nobody", json={"priority": 1}).status_code == 404
    for wrong, param in (({}, "service_tier"), ({"priority": 2000}, "priority"), ({"metadata": {}}, "metadata")):
        error = http.post(f"/v1/responses/{running}", json=wrong).json()["error"]
        assert error["param"] == param


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ({"background_options": {"completion_window": "2h"}}, 2 * 3600),
        ({"background_options": {"completion_window": "8h"}}, 8 * 3600),
        ({"background_options": {"completion_window": "8h"}, "expires_after": 60}, 60),
        ({"background_options": {"completion_window": "soonest"}}, None),
        ({"background_options": {}}, None),
    ],
)
def test_a_completion_window_is_a_deadline(
    http: httpx2.Client, worker: FakeWorker, fields: Json, seconds: int | None
) -> None:
    job_id = _queued(http, worker, **fields)

    with worker.database.connect() as c:
        job = jobs.find(c, job_id)
    assert job is not None
    span = None if job.expires_at is None else (job.expires_at - job.created_at).total_seconds()
    assert (span, job.priority_queue) == (seconds, PriorityQueue.BACK)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"background_options": {"completion_window": "1h"}}, "completion_window"),
        ({"background_options": {"continuation_id": "x"}, "background": False}, "continuation_id"),
        ({"background_options": {"continuation_id": "x"}, "stream": True}, "continuation_id"),
        ({"background_options": {"continuation_id": "x"}, "service_tier": "priority"}, "continuation_id"),
        ({"background_options": {"completion_window": "2h"}, "background": False}, "completion_window"),
        ({"background_options": {"completion_window": "2h"}, "stream": True}, "completion_window"),
        ({"background_options": {"completion_window": "soonest"}, "service_tier": "flex"}, "completion_window"),
        ({"background_options": {"completion_window": "8h"}, "priority": 0}, "completion_window"),
        ({"background_options": {"window": "8h"}}, "window"),
    ],
)
def test_other_background_options_are_refused(http: httpx2.Client, fields: Json, param: str) -> None:
    refused = _post(http, **fields)

    assert refused.status_code == 400
    error = refused.json()["error"]
    assert (error["code"], error["param"]) == ("unsupported_parameter", f"background_options.{param}")


def test_responses_of_one_continuation_run_one_after_another(http: httpx2.Client, worker: FakeWorker) -> None:
    worker.go.clear()
    worker.pauses_at = 2
    options = {"background_options": {"continuation_id": "c"}}
    first, second = (_post(http, **options).json()["id"] for _ in range(2))
    other = _post(http, background_options={"continuation_id": "d"}).json()["id"]

    def statuses() -> list[str]:
        return [http.get(f"/v1/responses/{job_id}").json()["status"] for job_id in (first, second, other)]

    wait_until(lambda: statuses() == ["in_progress", "queued", "in_progress"])
    assert http.post(f"/v1/responses/{first}/cancel").json()["status"] == "cancelled"

    # As the sweeper finds it.
    with worker.database.connect() as c:
        lost = recovery.list_lost_tickets(c, "demo", PriorityQueue.BACK, recovery.database_now(c))
    assert [ticket.job_id for ticket in lost] == [second]
