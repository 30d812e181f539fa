"""Turns of conversations with real chat templates, in which user and assistant must take turns."""

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from api.settings import ApiSettings
from tests.api.fake_worker import TEXT, FakeWorker
from tests.api.server import serving
from tests.plain_http import http_client
from tests.real.conftest import Real
from tests.waiting import wait_until

FAMILIES = ("gemma3", "mistral_v3", "mistral_tekken")


@pytest.fixture
def worker(sqlite_url: str, redis_url: str, real: Real) -> Iterator[FakeWorker]:
    """A worker of the family, whose words are the same for every prompt."""
    running = FakeWorker(sqlite_url, redis_url)
    try:
        running.start(real.loaded.manifest)
        yield running
    finally:
        running.stop()


@pytest.fixture
def http(sqlite_url: str, redis_url: str, worker: FakeWorker) -> Iterator[httpx2.Client]:
    settings = ApiSettings(
        database_url=sqlite_url, redis_url=redis_url, refresh_s=0.1, lease_s=60, storage_timeout_s=10
    )
    with serving(settings) as server, http_client(server.url) as client:
        yield client


@pytest.mark.parametrize("real", FAMILIES, indirect=True)
def test_a_turn_follows_a_cancelled_one(http: httpx2.Client, worker: FakeWorker, real: Real) -> None:
    model = real.loaded.manifest.model
    conversation = http.post("/v1/conversations", json={}).json()["id"]

    def say(text: str, **fields: Any) -> httpx2.Response:  # Any: JSON values
        body = {"model": model, "input": text, "conversation": conversation, "max_output_tokens": 64, **fields}
        return http.post("/v1/responses", json=body)

    assert say("one").status_code == 200
    worker.pauses_at = 3
    cut = say("two", background=True).json()["id"]
    wait_until(lambda: http.get(f"/v1/responses/{cut}").json()["status"] == "in_progress")
    assert http.post(f"/v1/responses/{cut}/cancel").json()["status"] == "cancelled"
    worker.pauses_at = None
    last = say("three")

    assert last.status_code == 200, last.text
    items = http.get(f"/v1/conversations/{conversation}/items", params={"order": "asc"}).json()["data"]
    assert [item["content"][0]["text"] for item in items] == ["one", TEXT, "three", TEXT]
    chat = [("user", "one"), ("assistant", TEXT), ("user", "three")]
    expected = real.tools.encode_chat([{"role": role, "content": content} for role, content in chat])
    assert worker.specs[-1].prompts == (tuple(expected),)

    # Two messages of a user in a row that the client makes itself: Mistral's templates join them, Gemma's refuses them.
    http.post(f"/v1/conversations/{conversation}/items", json={"items": [{"role": "user", "content": "four"}]})
    after = say("five")
    is_refused = real.name == "gemma3"
    assert after.status_code == (400 if is_refused else 200)
    assert not is_refused or after.json()["error"]["param"] == "input"
    items = http.get(f"/v1/conversations/{conversation}/items").json()["data"]
    assert len(items) == (5 if is_refused else 7)
