"""Signatures of webhooks, as Standard Webhooks 1.0 has them; pure.

Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Sequence

from storage.webhooks.errors import WebhookSignatureInvalid

SECRET_PREFIX = "whsec_"
TOLERANCE_S = 300
_VERSION = "v1"
_SECRET_BYTES = 32


def new_secret() -> str:
    """A fresh secret: `whsec_` and the base64 of 32 random bytes."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def is_secret(text: str) -> bool:
    """Whether the text can be a secret of ours: `whsec_` and the base64 of 24 to 64 bytes."""
    try:
        key = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        return False
    return text.startswith(SECRET_PREFIX) and 24 <= len(key) <= 64


def sign(signing_secrets: Sequence[str], event_id: str, timestamp: int, body: bytes) -> str:
    """The value of `webhook-signature`: one signature for each secret, any of which may match.

    timestamp: Unix time, whole seconds
    """
    return " ".join(f"{_VERSION},{_signature(secret, event_id, str(timestamp), body)}" for secret in signing_secrets)


def verify(
    signing_secrets: Sequence[str], event_id: str, timestamp: str, signatures: str, body: bytes, now: float
) -> None:
    """Return if one of the secrets signed this body within the tolerance; WebhookSignatureInvalid says why not.

    event_id, timestamp, signatures: the headers `webhook-id`, `webhook-timestamp` and `webhook-signature`
    now:                             Unix time
    """
    if not (timestamp.isascii() and timestamp.isdecimal() and len(timestamp) <= 12):
        raise WebhookSignatureInvalid("webhook-timestamp is no Unix time")
    age_s = now - int(timestamp)
    if abs(age_s) > TOLERANCE_S:
        when = "ago" if age_s > 0 else "ahead"
        raise WebhookSignatureInvalid(f"webhook-timestamp lies {abs(age_s):.0f} s {when}, more than {TOLERANCE_S} s")
    expected = [_signature(secret, event_id, timestamp, body).encode() for secret in signing_secrets]
    for entry in signatures.split(" "):
        version, _, given = entry.partition(",")
        if version == _VERSION and any(hmac.compare_digest(given.encode(), one) for one in expected):
            return
    raise WebhookSignatureInvalid("webhook-signature holds no signature by this secret")


def _signature(secret: str, event_id: str, timestamp: str, body: bytes) -> str:
    content = b".".join((event_id.encode(), timestamp.encode(), body))
    return base64.b64encode(hmac.new(_key_of(secret), content, hashlib.sha256).digest()).decode()


def _key_of(secret: str) -> bytes:
    if secret.startswith(SECRET_PREFIX):
        return base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    return secret.encode()
