"""Webhook payload: the event as JSON, and the request headers with its signature; pure."""

from importlib.metadata import version

import msgspec

from storage.contract import JobKind
from storage.webhooks.delivery_queue import Sending
from storage.webhooks.signing import sign

USER_AGENT = f"tokenpost/{version('tokenpost')}"
# Ids in the payload of a test delivery, in place of a job's id.
_TEST_IDS = {kind.noun: f"{kind.prefix}test" for kind in JobKind} | {"batch": "batch_test"}

Headers = list[tuple[str, str]]


def body_of(sending: Sending) -> bytes:
    """The event in OpenAI's form: its type and the job's id, without any content of the job."""
    return msgspec.json.encode(
        {
            "id": sending.event_id,
            "object": "event",
            "created_at": int(sending.created_at.timestamp()),
            "type": sending.type,
            "data": {"id": sending.job_id or _TEST_IDS[sending.type.rpartition(".")[0]]},
        }
    )


def headers_of(sending: Sending, body: bytes, host: str, timestamp: int) -> Headers:
    """All headers of a request; the HTTP client adds none.

    host:      as in the URL
    timestamp: Unix time of this attempt, whole seconds
    """
    return [
        ("host", host),
        ("content-type", "application/json"),
        ("content-length", str(len(body))),
        ("user-agent", USER_AGENT),
        ("accept-encoding", "identity"),
        ("connection", "close"),
        ("webhook-id", sending.event_id),
        ("webhook-timestamp", str(timestamp)),
        ("webhook-signature", sign(sending.secrets, sending.event_id, timestamp, body)),
    ]
