"""A ticket as a message of Celery's protocol 2, as kombu's Redis transport keeps it in a list.

Source: https://docs.celeryq.dev/en/stable/internals/protocol.html
"""

from base64 import b64encode

import msgspec

# The Celery task that a ticket is for.
GENERATE = "tokenpost.generate"
_NO_EMBED: dict[str, None] = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


class _Headers(msgspec.Struct, frozen=True, kw_only=True):
    """Headers of the protocol; `sent_at` is our own."""

    lang: str = "py"
    task: str = GENERATE
    id: str
    root_id: str
    parent_id: None = None
    group: None = None
    retries: int = 0
    timelimit: tuple[None, None] = (None, None)
    eta: None = None
    expires: None = None
    argsrepr: str = ""
    kwargsrepr: str = ""
    origin: str = "tokenpost"
    ignore_result: bool = True
    sent_at: float


class _DeliveryInfo(msgspec.Struct, frozen=True, kw_only=True):
    exchange: str = ""
    routing_key: str


class _Properties(msgspec.Struct, frozen=True, kw_only=True):
    correlation_id: str
    delivery_mode: int = 2
    delivery_info: _DeliveryInfo
    priority: int = 0
    body_encoding: str = "base64"
    delivery_tag: str


class _Message(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    rename={"content_encoding": "content-encoding", "content_type": "content-type"},
):
    body: str
    content_encoding: str = "utf-8"
    content_type: str = "application/json"
    headers: _Headers
    properties: _Properties


class _SentHeaders(msgspec.Struct):
    sent_at: float


class _SentMessage(msgspec.Struct):
    """As much of a waiting ticket as its age needs."""

    headers: _SentHeaders


_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(_SentMessage)


def encode_ticket(job_id: str, queue: str, sent_at: float) -> bytes:
    """The message; kombu's own publishing costs ten times as much.

    queue:   name of the queue
    sent_at: Unix time in seconds, by Redis' clock
    """
    return _encode(
        _Message(
            body=b64encode(_encode(([job_id], {}, _NO_EMBED))).decode(),
            headers=_Headers(id=job_id, root_id=job_id, sent_at=sent_at),
            properties=_Properties(
                correlation_id=job_id,
                delivery_info=_DeliveryInfo(routing_key=queue),
                # Unique among the tickets of one job, which is all that an acknowledgement needs.
                delivery_tag=f"{job_id}:{sent_at}",
            ),
        )
    )


def sent_at_of(message: bytes) -> float:
    """When a ticket was sent."""
    return _decoder.decode(message).headers.sent_at
