"""What a job's end tells: its own target, its owner's endpoints, and the log of it. On both databases."""

from datetime import UTC, datetime

import httpx2
import openai
import pytest
from sqlalchemy import insert

from api.settings import ApiSettings
from storage.accounts import keys
from storage.contract import JobKind
from storage.database.table_definitions import table_of
from storage.jobs import jobs
from storage.webhooks.signing import new_secret
from storage.webhooks.tables import WebhookDelivery
from tests.api.examples import CALLS, NAMES, RESPONSE, Call
from tests.api.fake_sender import FakeSender
from tests.api.fake_worker import FakeWorker
from tests.api.server import Server
from tests.waiting import wait_until

URL = "http://127.0.0.1:9/hook"
_KINDS = (JobKind.RESPONSE, JobKind.CHAT, JobKind.COMPLETION)
_NOUN_OF = dict(zip((call.path for call in CALLS), (kind.noun for kind in _KINDS), strict=True))


@pytest.fixture
def database_url(each_database_url: str) -> str:
    return each_database_url


@pytest.fixture
def settings(settings: ApiSettings) -> ApiSettings:
    """An API that tells receivers on this machine."""
    return settings.model_copy(update={"webhook_loopback": True})


def _deliveries(http: httpx2.Client, path: str, **query: object) -> list[dict[str, object]]:
    """The deliveries of an endpoint or job, once none is pending; there is at least one."""

    def ended() -> list[dict[str, object]]:
        found: list[dict[str, object]] = http.get(f"{path}/deliveries", params=query).json()["data"]
        return found if all(one["status"] != "pending" for one in found) else []

    return wait_until(ended, what="deliveries that have ended")


@pytest.mark.parametrize("call", CALLS, ids=NAMES)
def test_a_job_tells_its_own_target(http: httpx2.Client, sender: FakeSender, call: Call) -> None:
    secret = new_secret()

    job_id = call.post(http, webhook={"url": URL, "secret": secret}).headers["x-job-id"]

    [delivery] = _deliveries(http, call.url_of(job_id))
    assert delivery["event_type"] == f"{_NOUN_OF[call.path]}.completed"
    assert (delivery["job_id"], delivery["webhook_endpoint_id"], delivery["url"]) == (job_id, None, URL)
    assert (delivery["status"], delivery["num_attempts"], delivery["next_attempt_at"]) == ("delivered", 1, None)
    [attempt] = delivery["attempts"]  # type: ignore[misc]  # JSON
    assert attempt == {
        "number": 1,
        "started_at": attempt["started_at"],
        "latency_ms": 7,
        "status_code": 204,
        "error": None,
        "answer": "thanks",
    }
    assert sender.sent[0].secrets == (secret,)


def test_a_target_without_a_secret_is_signed_with_the_default_one(http: httpx2.Client, sender: FakeSender) -> None:
    secret = http.get("/v1/webhook_secret").json()["signing_secret"]

    assert RESPONSE.post(http, webhook={"url": URL}).status_code == 200

    wait_until(lambda: sender.sent)
    assert sender.sent[0].secrets == (secret,)


def test_a_target_gets_only_the_events_that_it_wants(http: httpx2.Client, sender: FakeSender) -> None:
    unwanted = RESPONSE.post(http, webhook={"url": URL, "events": ["failed"]}).json()["id"]
    wanted = RESPONSE.post(http, webhook={"url": URL, "events": ["response.completed", "failed"]}).json()["id"]

    assert len(_deliveries(http, RESPONSE.url_of(wanted))) == 1
    assert http.get(f"{RESPONSE.url_of(unwanted)}/deliveries").json()["data"] == []


@pytest.mark.parametrize("call", CALLS, ids=NAMES)
def test_a_target_is_shown_nowhere_and_its_job_is_stored(
    http: httpx2.Client, worker: FakeWorker, settings: ApiSettings, call: Call
) -> None:
    secret = new_secret()

    answer = call.post(http, webhook={"url": URL, "secret": secret})
    unstored = call.post(http, webhook={"url": URL}, store=False).headers["x-job-id"]

    job_id = answer.headers["x-job-id"]
    for shown in (answer, http.get(call.url_of(job_id)), http.get("/v1/chat/completions")):
        assert shown.status_code == 200
        assert secret not in shown.text
    with worker.database.connect() as c:
        job, other = jobs.get(c, job_id, "local"), jobs.get(c, unstored, "local")
    assert job.webhook == {"url": URL, "events": None, "secret": secret}
    assert "webhook" not in job.request
    assert (job.store, job.retention_s) == (True, settings.job_retention_stored_s)
    assert other.store is False


def test_an_endpoint_gets_an_event_of_every_job_and_has_a_log(
    http: httpx2.Client, client: openai.OpenAI, sender: FakeSender
) -> None:
    made = client.webhooks.create(name="mine", url=URL, event_types=["response.completed"])
    path = f"/v1/webhook_endpoints/{made.id}"
    sender.status_code, sender.answer = 500, "ouch"
    first = RESPONSE.post(http).json()["id"]
    wait_until(lambda: len(sender.sent) == 1)
    sender.status_code = 200
    second = RESPONSE.post(http).json()["id"]
    wait_until(lambda: len(sender.sent) == 2)

    log = _deliveries(http, path)

    assert [delivery["job_id"] for delivery in log] == [second, first]
    assert [delivery["status"] for delivery in log] == ["delivered", "dead"]
    assert [delivery["attempts"][0]["status_code"] for delivery in log] == [200, 500]  # type: ignore[index]  # JSON
    assert [one["job_id"] for one in _deliveries(http, path, status="dead")] == [first]
    page = http.get(f"{path}/deliveries", params={"limit": 1}).json()
    rest = http.get(f"{path}/deliveries", params={"limit": 1, "after": page["last_id"]}).json()
    assert (page["has_more"], rest["has_more"]) == (True, False)
    assert page["data"] + rest["data"] == log
    assert http.get(f"/v1/webhook_deliveries/{page['last_id']}").json() == page["data"][0]


def test_one_delivery_is_sent_again(http: httpx2.Client, sender: FakeSender) -> None:
    sender.status_code = 500
    job_id = RESPONSE.post(http, webhook={"url": URL}).json()["id"]
    [dead] = _deliveries(http, RESPONSE.url_of(job_id))
    sender.status_code = 200

    again = http.post(f"/v1/webhook_deliveries/{dead['id']}/redeliver").json()

    assert (again["id"], again["status"], again["num_attempts"]) == (dead["id"], "pending", 1)
    [delivered] = _deliveries(http, RESPONSE.url_of(job_id))
    assert (delivered["status"], delivered["event_id"]) == ("delivered", dead["event_id"])
    assert [attempt["number"] for attempt in delivered["attempts"]] == [1, 2]  # type: ignore[attr-defined]  # JSON
    assert sender.sent[0].event_id == sender.sent[1].event_id


def test_all_events_since_a_moment_are_redelivered_to_an_endpoint(
    http: httpx2.Client, client: openai.OpenAI, sender: FakeSender
) -> None:
    made = client.webhooks.create(name="mine", url=URL, event_types=["response.completed"])
    path = f"/v1/webhook_endpoints/{made.id}"
    for _ in range(3):
        RESPONSE.post(http)
    wait_until(lambda: len(sender.sent) == 3)

    redelivered = http.post(f"{path}/redeliver", json={"since": made.created_at}).json()
    wait_until(lambda: len(sender.sent) == 6)
    later = http.post(f"{path}/redeliver", json={"since": made.created_at + 3600}).json()
    dead = http.post(f"{path}/redeliver", json={"since": 0, "status": "dead"}).json()

    assert redelivered == {"object": "webhook_endpoint.redelivery", "webhook_endpoint_id": made.id, "num_deliveries": 3}
    assert later["num_deliveries"] == dead["num_deliveries"] == 0


def test_any_number_of_events_is_redelivered(http: httpx2.Client, client: openai.OpenAI, worker: FakeWorker) -> None:
    made = client.webhooks.create(name="mine", url=URL, event_types=[])
    now = datetime.now(UTC)
    row = {"event_id": "evt_1", "owner": "local", "endpoint_id": made.id, "job_id": "resp_1", "type": "x", "url": URL}
    row |= {"host": "127.0.0.1:9", "status": "delivered", "num_attempts": 1, "num_attempts_before": 0}
    with worker.database.begin() as c:
        moments = {"next_attempt_at": now, "created_at": now}
        c.execute(insert(table_of(WebhookDelivery)), [row | moments | {"id": f"dlv_{n:032x}"} for n in range(4001)])

    again = http.post(f"/v1/webhook_endpoints/{made.id}/redeliver", json={"since": made.created_at}).json()

    assert again["num_deliveries"] == 4001


def test_the_deliveries_of_another_owner_are_not_found(
    http: httpx2.Client, server: Server, worker: FakeWorker, sender: FakeSender
) -> None:
    job_id = RESPONSE.post(http, webhook={"url": URL}).json()["id"]
    [delivery] = _deliveries(http, RESPONSE.url_of(job_id))
    with worker.database.begin() as c:
        key = keys.create(c, "alice", pepper=b"pepper-of-a-test", now=datetime.now(UTC)).plaintext
    wait_until(lambda: http.get("/v1/models").status_code == 401)

    with httpx2.Client(base_url=server.url, headers={"authorization": f"Bearer {key}"}, trust_env=False) as alice:
        answers = [
            alice.get(f"{RESPONSE.url_of(job_id)}/deliveries"),
            alice.get(f"/v1/webhook_deliveries/{delivery['id']}"),
            alice.post(f"/v1/webhook_deliveries/{delivery['id']}/redeliver"),
        ]

    assert [answer.status_code for answer in answers] == [404, 404, 404]


def test_bad_questions_are_answered_by_name(http: httpx2.Client, client: openai.OpenAI) -> None:
    path = f"/v1/webhook_endpoints/{client.webhooks.create(name='x', url=URL, event_types=[]).id}"

    for query, param in (
        ({"status": "lost"}, "status"),
        ({"limit": 0}, "limit"),
        ({"order": "up"}, "order"),
        ({"owner": "alice"}, "owner"),
    ):
        refused = http.get(f"{path}/deliveries", params=query)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)
    for body, param in (({}, "since"), ({"since": -1}, "since"), ({"since": 1, "status": "lost"}, "status")):
        refused = http.post(f"{path}/redeliver", json=body)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)
    assert http.get("/v1/webhook_deliveries/dlv_nope").status_code == 404
