"""Signatures: the standard's own example, ours by the eyes of the openai SDK, and what is refused."""

import json
import time

import pytest
from openai import OpenAI

from storage.webhooks import signing
from storage.webhooks.errors import WebhookSignatureInvalid

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = b'{"test": 2432232314}'
ID, AT = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_example_of_the_reference_libraries_comes_out() -> None:
    assert signing.sign([SECRET], ID, AT, BODY) == SIGNATURE
    signing.verify([SECRET], ID, str(AT), SIGNATURE, BODY, AT + 299)


def test_during_a_rotation_either_secret_verifies() -> None:
    new, old = signing.new_secret(), signing.new_secret()
    signatures = signing.sign([new, old], ID, AT, BODY)

    assert len(signatures.split(" ")) == 2
    for secret in (new, old):
        signing.verify([secret], ID, str(AT), signatures, BODY, AT)
    signing.verify([signing.new_secret(), old], ID, str(AT), f"v1a,xyz  v2 {signatures}", BODY, AT)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"event_id": "msg_x"}, "no signature"),
        ({"body": BODY + b" "}, "no signature"),
        ({"signing_secrets": [signing.new_secret()]}, "no signature"),
        ({"signing_secrets": []}, "no signature"),
        ({"signatures": ""}, "no signature"),
        ({"signatures": "v1,ü"}, "no signature"),
        ({"signatures": SIGNATURE.replace("v1", "v2")}, "no signature"),
        ({"timestamp": str(AT + 1)}, "no signature"),
        ({"timestamp": ""}, "no Unix time"),
        ({"timestamp": "-5"}, "no Unix time"),
        ({"timestamp": "9" * 5000}, "no Unix time"),
        ({"timestamp": "٣"}, "no Unix time"),
        ({"now": AT + 301}, "301 s ago"),
        ({"now": AT - 301}, "301 s ahead"),
    ],
)
def test_anything_else_is_refused(change: dict[str, object], reason: str) -> None:
    given = {"event_id": ID, "timestamp": str(AT), "signatures": SIGNATURE, "body": BODY, "now": AT}
    given |= {"signing_secrets": [SECRET]} | change

    with pytest.raises(WebhookSignatureInvalid, match=reason):
        signing.verify(**given)  # type: ignore[arg-type]  # arguments by name


def test_a_secret_is_distinguished_from_what_is_none() -> None:
    assert signing.is_secret(signing.new_secret())
    assert signing.is_secret(SECRET)
    for text in (
        "",
        "whsec_",
        "whsec_ü",
        "whsec_AAAA",
        SECRET.removeprefix("whsec_"),
        SECRET + "!",
        "whsec_" + "A" * 88,
    ):
        assert not signing.is_secret(text), text


def test_the_openai_sdk_unwraps_what_is_signed_here() -> None:
    new, old = signing.new_secret(), signing.new_secret()
    now = int(time.time())
    event = {
        "id": "evt_1",
        "object": "event",
        "created_at": now,
        "type": "response.completed",
        "data": {"id": "resp_1"},
    }
    body = json.dumps(event)
    headers = {
        "webhook-id": "evt_1",
        "webhook-timestamp": str(now),
        "webhook-signature": signing.sign([new, old], "evt_1", now, body.encode()),
    }

    for secret in (new, old):
        unwrapped = OpenAI(api_key="k", webhook_secret=secret).webhooks.unwrap(body, headers)
        assert unwrapped.type == "response.completed"
        assert unwrapped.data.id == "resp_1"
