"""Webhook endpoints through the unmodified SDK, on both databases."""

from datetime import UTC, datetime

import httpx2
import openai
import pytest
from openai.types.webhooks.webhook_endpoint_with_secret import WebhookEndpointWithSecret

from api.settings import ApiSettings
from storage.accounts import keys
from storage.database.connections import Database
from storage.webhooks import endpoints
from storage.webhooks.event_types import EVENT_TYPES
from tests.api.fake_sender import FakeSender
from tests.api.fake_worker import FakeWorker
from tests.api.server import Server
from tests.waiting import wait_until

URL = "http://127.0.0.1:9/hook"


@pytest.fixture
def database_url(each_database_url: str) -> str:
    return each_database_url


@pytest.fixture
def settings(settings: ApiSettings) -> ApiSettings:
    """An API that tells receivers on this machine."""
    return settings.model_copy(update={"webhook_loopback": True})


def _create(client: openai.OpenAI, name: str = "mine") -> WebhookEndpointWithSecret:
    return client.webhooks.create(name=name, url=URL, event_types=["response.completed", "response.failed"])


def test_an_endpoint_is_made_read_changed_and_deleted(client: openai.OpenAI) -> None:
    made = _create(client)
    read = client.webhooks.retrieve(made.id)
    changed = client.webhooks.update(made.id, name="yours", event_types=["response.failed"])
    deleted = client.webhooks.delete(made.id)

    assert made.id.startswith("we_")
    assert (made.name, made.url, made.event_types) == ("mine", URL, ["response.completed", "response.failed"])
    assert made.updated_at == made.created_at
    assert read.to_dict() == {name: value for name, value in made.to_dict().items() if name != "signing_secret"}
    assert (changed.name, changed.url, changed.event_types) == ("yours", URL, ["response.failed"])
    assert (deleted.id, deleted.object, deleted.deleted) == (made.id, "webhook_endpoint.deleted", True)
    with pytest.raises(openai.NotFoundError):
        client.webhooks.retrieve(made.id)


def test_a_secret_is_shown_once_and_hinted_at_afterwards(client: openai.OpenAI, http: httpx2.Client) -> None:
    made = _create(client)
    others = [
        http.get(f"/v1/webhook_endpoints/{made.id}"),
        http.get("/v1/webhook_endpoints"),
        http.post(f"/v1/webhook_endpoints/{made.id}", json={"name": "yours"}),
    ]

    assert made.signing_secret.startswith("whsec_")
    assert made.signing_secret_hint == f"whsec_...{made.signing_secret.rstrip('=')[-4:]}"
    for answer in others:
        assert answer.status_code == 200
        assert made.signing_secret not in answer.text
        assert made.signing_secret_hint in answer.text


def test_endpoints_come_in_pages_the_newest_first(client: openai.OpenAI) -> None:
    made = [_create(client, name=f"number {number}").id for number in range(5)]

    first = client.webhooks.list(limit=2)
    every = [endpoint.id for endpoint in client.webhooks.list(limit=2)]

    assert (first.has_more, [endpoint.name for endpoint in first.data]) == (True, ["number 4", "number 3"])
    assert every == made[::-1]


def test_a_rotated_secret_leaves_the_old_one_good_for_a_day_if_that_is_wished(
    client: openai.OpenAI, worker: FakeWorker
) -> None:
    made = _create(client)

    kept = client.webhooks.rotate_secret(made.id, keep_old_secret_active_for_24_hours=True)
    with worker.database.connect() as c:
        with_old = endpoints.secrets_of(endpoints.get_endpoint(c, made.id, "local"), datetime.now(UTC))
    fresh = client.webhooks.rotate_secret(made.id)
    with worker.database.connect() as c:
        alone = endpoints.secrets_of(endpoints.get_endpoint(c, made.id, "local"), datetime.now(UTC))

    assert with_old == (kept.signing_secret, made.signing_secret)
    assert alone == (fresh.signing_secret,)
    assert len({made.signing_secret, kept.signing_secret, fresh.signing_secret}) == 3


def test_an_update_that_changes_nothing_does_not_count_as_one(client: openai.OpenAI, worker: FakeWorker) -> None:
    made = _create(client)
    with worker.database.begin() as c:
        before = endpoints.get_endpoint(c, made.id, "local")

    client.webhooks.update(made.id, name=made.name, url=made.url)

    with worker.database.begin() as c:
        assert endpoints.get_endpoint(c, made.id, "local") == before


def test_an_endpoint_without_types_gets_every_event(http: httpx2.Client, client: openai.OpenAI) -> None:
    made = http.post("/v1/webhook_endpoints", json={"name": "all", "url": URL})

    assert made.json()["event_types"] == list(EVENT_TYPES)
    assert client.webhooks.event_types.list().data == list(EVENT_TYPES)


def test_a_disabled_endpoint_says_so_and_can_be_enabled(http: httpx2.Client, client: openai.OpenAI) -> None:
    path = f"/v1/webhook_endpoints/{_create(client).id}"

    disabled = http.post(path, json={"enabled": False}).json()
    refused = http.post(f"{path}/redeliver", json={"since": 0})
    enabled = http.post(path, json={"enabled": True}).json()

    assert (disabled["enabled"], disabled["disabled_reason"]) == (False, "Its owner disabled it.")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "webhook_endpoint_disabled")
    assert (enabled["enabled"], enabled["disabled_reason"]) == (True, None)


def test_a_test_tells_what_the_receiver_answered(client: openai.OpenAI, sender: FakeSender) -> None:
    made = _create(client)
    sender.status_code = 500

    result = client.webhooks.test(made.id, event_type="response.completed")

    assert result.to_dict() == {
        "object": "webhook_endpoint.test",
        "webhook_endpoint_id": made.id,
        "event_type": "response.completed",
        "status_code": 500,
        "success": True,
    }
    [sent] = sender.sent
    assert (sent.url, sent.type, sent.secrets) == (URL, "response.completed", (made.signing_secret,))


def test_a_test_that_nobody_answers_is_an_error_that_is_not_tried_again(
    client: openai.OpenAI, sender: FakeSender
) -> None:
    made = _create(client)
    sender.status_code, sender.error = None, "connection refused"

    with pytest.raises(openai.APIStatusError, match=r"did not answer\. connection refused") as refused:
        client.with_options(max_retries=2).webhooks.test(made.id, event_type="response.completed")

    assert refused.value.status_code == 424
    assert len(sender.sent) == 1


def test_a_test_waits_for_a_sender_only_so_long(client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.webhooks.first_attempt.TIMEOUT_S", 0.2)
    made = _create(client)

    with pytest.raises(openai.APIStatusError, match="was not sent within") as refused:
        client.webhooks.test(made.id, event_type="response.completed")

    assert refused.value.status_code == 424


def test_the_default_secret_is_made_once_and_can_be_replaced(http: httpx2.Client) -> None:
    first, again = http.get("/v1/webhook_secret").json(), http.get("/v1/webhook_secret").json()
    rotated = http.post("/v1/webhook_secret/rotate").json()

    assert first["object"] == "webhook_secret"
    assert first["signing_secret"].startswith("whsec_")
    assert again == first
    assert rotated["signing_secret"] != first["signing_secret"]
    assert http.get("/v1/webhook_secret").json() == rotated


def test_the_endpoints_of_another_owner_are_not_found(
    client: openai.OpenAI, server: Server, worker: FakeWorker
) -> None:
    made = _create(client)
    database: Database = worker.database
    with database.begin() as c:
        key = keys.create(c, "alice", pepper=b"pepper-of-a-test", now=datetime.now(UTC)).plaintext

    with httpx2.Client(base_url=server.url, headers={"authorization": f"Bearer {key}"}, trust_env=False) as alice:
        wait_until(lambda: httpx2.get(f"{server.url}/v1/models", trust_env=False).status_code == 401)
        path = f"/v1/webhook_endpoints/{made.id}"
        answers = [
            alice.get(path),
            alice.post(path, json={"name": "hers"}),
            alice.delete(path),
            alice.post(f"{path}/rotate_secret", json={}),
            alice.post(f"{path}/test", json={"event_type": "response.completed"}),
            alice.post(f"{path}/redeliver", json={"since": 0}),
            alice.get(f"{path}/deliveries"),
        ]
        assert alice.get("/v1/webhook_endpoints").json()["data"] == []

    assert [answer.status_code for answer in answers] == [404] * len(answers)


def test_a_call_with_a_key_makes_one_endpoint(http: httpx2.Client) -> None:
    body, key = {"name": "mine", "url": URL}, {"idempotency-key": "once"}

    first = http.post("/v1/webhook_endpoints", json=body, headers=key)
    again = http.post("/v1/webhook_endpoints", json=body, headers=key)
    other = http.post("/v1/webhook_endpoints", json={**body, "name": "yours"}, headers=key)
    http.delete(f"/v1/webhook_endpoints/{first.json()['id']}")
    anew = http.post("/v1/webhook_endpoints", json=body, headers=key)

    assert again.json() == first.json()
    assert ["idempotent-replayed" in answer.headers for answer in (first, again)] == [False, True]
    assert other.status_code == 422
    assert anew.status_code == 200
    assert anew.json()["id"] != first.json()["id"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 1000}, "name"),
        ({"name": "a\x00b"}, "name"),
        ({"name": None}, "name"),
        ({"url": ""}, "url"),
        ({"url": "https://example.com/" + "x" * 3000}, "url"),
        ({"url": 5}, "url"),
        ({"event_types": ["batch.begun"]}, "event_types[0]"),
        ({"event_types": "response.completed"}, "event_types"),
        ({"event_types": ["response.completed"] * 100}, "event_types"),
        ({"secret": "mine"}, "secret"),
    ],
)
def test_a_bad_field_of_an_endpoint_is_named(http: httpx2.Client, fields: dict[str, object], param: str) -> None:
    body = {"name": "mine", "url": URL, "event_types": ["response.completed"], **fields}

    refused = http.post("/v1/webhook_endpoints", json=body)

    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param), refused.text


def test_an_owner_has_so_many_endpoints_and_no_more(http: httpx2.Client) -> None:
    made = [http.post("/v1/webhook_endpoints", json={"name": "one of many", "url": URL}) for _ in range(51)]

    assert {answer.status_code for answer in made[:50]} == {200}
    assert made[50].status_code == 400
    assert "50 webhook endpoints" in made[50].json()["error"]["message"]
