"""The receiver of webhooks: what it remembers, and how it misbehaves once and then no more."""

import json
import time
from collections.abc import Iterator

import httpx2
import pytest

from storage.webhooks import signing
from tests.drill.receiver import ELSEWHERE, Manner, Receiver


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    made.start()
    yield made
    made.stop()


def post_event(receiver: Receiver, *, secret: str = "", path: str = "") -> httpx2.Response:
    """One delivery, signed."""
    body = json.dumps({"id": "evt_1", "type": "response.completed", "data": {"id": "resp_1"}}).encode()
    now = int(time.time())
    headers = {
        "webhook-id": "evt_1",
        "webhook-timestamp": str(now),
        "webhook-signature": signing.sign([secret or receiver.secret], "evt_1", now, body),
    }
    url = str(receiver.target["url"])
    url = url.replace("/hook", path) if path else url
    return httpx2.post(url, content=body, headers=headers, trust_env=False, timeout=10)


def test_it_records_what_it_received(receiver: Receiver) -> None:
    assert post_event(receiver).status_code == 200

    [hook] = receiver.hooks()["resp_1"]
    assert (hook.event_id, hook.type) == ("evt_1", "response.completed")
    assert hook.is_signed
    assert hook.is_taken
    assert not hook.is_followed


def test_it_sees_another_signature_and_a_followed_redirect(receiver: Receiver) -> None:
    post_event(receiver, secret=signing.new_secret())
    post_event(receiver, path=ELSEWHERE)

    first, second = receiver.hooks()["resp_1"]
    assert not first.is_signed
    assert second.is_followed


@pytest.mark.parametrize(("manner", "status"), [(Manner.FAILING, 500), (Manner.REDIRECTING, 307)])
def test_it_misbehaves_at_the_first_delivery_alone(receiver: Receiver, manner: Manner, status: int) -> None:
    receiver.manner = manner

    assert [post_event(receiver).status_code for _ in range(2)] == [status, 200]
    assert [hook.is_taken for hook in receiver.hooks()["resp_1"]] == [False, True]


def test_it_can_break_off_and_say_too_much(receiver: Receiver) -> None:
    receiver.manner = Manner.BREAKING
    with pytest.raises(httpx2.HTTPError):
        post_event(receiver)
    assert len(post_event(receiver).content) == 2
