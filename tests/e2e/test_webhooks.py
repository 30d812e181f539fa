"""Webhooks of a real platform: to the SDK's own verification, to one job's target, and to `listen`."""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx2
import openai
import pytest
from openai import OpenAI

from storage.webhooks.signing import new_secret, sign
from tests.e2e.platform import Platform, bare_environment
from tests.waiting import wait_until

# The sender looks twice a second; a busy machine takes its time.
_TIMEOUT_S = 30.0


class Receiver:
    """A receiver that takes everything, and keeps it as it came."""

    def __init__(self) -> None:
        self.posts: list[tuple[bytes, dict[str, str]]] = []
        posts = self.posts

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                posts.append((self.rfile.read(int(self.headers["content-length"])), dict(self.headers)))
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"thanks")

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver on this machine."""
    made = Receiver()
    thread = Thread(target=made.server.serve_forever)
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


def test_the_sdk_accepts_what_an_endpoint_receives(client: OpenAI, receiver: Receiver) -> None:
    endpoint = client.webhooks.create(name="e2e", url=receiver.url, event_types=["response.completed"])
    try:
        tested = client.webhooks.test(endpoint.id, event_type="response.completed")
        job = client.responses.create(model="demo", input="Hello!", background=True)
        wait_until(lambda: len(receiver.posts) == 2, _TIMEOUT_S, "two events")
    finally:
        client.webhooks.delete(endpoint.id)

    (test_event, test_headers), (body, headers) = receiver.posts
    assert (tested.status_code, tested.success) == (200, True)
    assert client.webhooks.unwrap(test_event, test_headers, secret=endpoint.signing_secret).type == "response.completed"
    event = client.webhooks.unwrap(body, headers, secret=endpoint.signing_secret)
    assert isinstance(event, openai.types.webhooks.ResponseCompletedWebhookEvent)
    assert event.data.id == job.id
    assert client.responses.retrieve(job.id).status == "completed"
    with pytest.raises(openai.InvalidWebhookSignatureError):
        client.webhooks.unwrap(body + b" ", headers, secret=endpoint.signing_secret)


def test_the_docs_verify_by_hand_what_the_platform_signs() -> None:
    docs = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text()
    [block] = [one for one in re.findall(r"^```python\n(.*?)^```$", docs, re.MULTILINE | re.DOTALL) if "hmac" in one]
    reported: dict[str, Any] = {}  # Any: what a page for people defines
    exec(block, reported)
    secret, body, now = new_secret(), b'{"id": "evt_1"}', int(time.time())

    def headers(moment: int) -> dict[str, str]:
        signature = sign([new_secret(), secret], "evt_1", moment, body)
        return {"webhook-id": "evt_1", "webhook-timestamp": str(moment), "webhook-signature": signature}

    assert reported["is_genuine"](body, headers(now), secret)
    assert not reported["is_genuine"](body + b" ", headers(now), secret)
    assert not reported["is_genuine"](body, headers(now), new_secret())
    assert not reported["is_genuine"](body, headers(now - 301), secret)


def test_two_secrets_sign_while_one_takes_the_others_place(client: OpenAI, receiver: Receiver) -> None:
    endpoint = client.webhooks.create(name="e2e", url=receiver.url, event_types=["response.completed"])
    try:
        rotated = client.webhooks.rotate_secret(endpoint.id, keep_old_secret_active_for_24_hours=True)
        client.webhooks.test(endpoint.id, event_type="response.completed")
    finally:
        client.webhooks.delete(endpoint.id)

    [(body, headers)] = receiver.posts
    for secret in (endpoint.signing_secret, rotated.signing_secret):
        assert client.webhooks.unwrap(body, headers, secret=secret).type == "response.completed"


def test_a_chat_tells_its_own_target_and_the_log_says_so(
    platform: Platform, client: OpenAI, receiver: Receiver
) -> None:
    chat = client.chat.completions.create(
        model="demo",
        messages=[{"role": "user", "content": "Hello!"}],
        extra_body={"webhook": {"url": receiver.url, "events": ["completed", "incomplete"]}},
    )
    wait_until(lambda: receiver.posts, _TIMEOUT_S, "an event")

    [(body, headers)] = receiver.posts
    secret = httpx2.get(f"{platform.base_url}/webhook_secret", trust_env=False).json()["signing_secret"]
    # The SDK has no class for it, and verifies it all the same.
    event = client.webhooks.unwrap(body, headers, secret=secret)
    assert event.type in ("chat.completion.completed", "chat.completion.incomplete")
    assert event.data.id == chat.id
    path = f"{platform.base_url}/chat/completions/{chat.id}/deliveries"
    [delivery] = wait_until(
        lambda: [one for one in httpx2.get(path, trust_env=False).json()["data"] if one["status"] == "delivered"]
    )
    assert (delivery["event_id"], delivery["attempts"][0]["answer"]) == (headers["webhook-id"], "thanks")
    [listed] = platform.command("webhooks", "deliveries", "--job", chat.id)
    assert listed == delivery


def test_what_happens_is_printed_where_somebody_listens(platform: Platform, client: OpenAI) -> None:
    line = [sys.executable, "-m", "api.cli.main", "webhooks", "listen", "--port", "0", "--home", str(platform.home)]
    with subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=bare_environment()
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            greeting, test_event = process.stderr.readline(), process.stderr.readline()
            job_id = client.responses.create(model="demo", input="Hello!").id
            reported = process.stdout.readline().split()
            process.send_signal(signal.SIGINT)
            code = process.wait(_TIMEOUT_S)
        finally:
            process.kill()

    assert greeting.startswith("tokenpost: listening on http://127.0.0.1:")
    assert test_event == "tokenpost: the platform reaches this receiver\n"
    assert reported[2] == job_id
    assert code == 0
    assert list(client.webhooks.list()) == []
