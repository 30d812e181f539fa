"""One POST that makes something: whose it is, what it sends, and what its headers say about earlier tries of it."""

import hashlib
import math
import re

import msgspec
from starlette.requests import Request

from api.dependencies import body_of, owner_of
from api.protocol.shared.deadline_fields import MAX_DEADLINE_S
from storage.errors import IDEMPOTENCY_KEY, InvalidRequest

CANCEL_AFTER = "Cancel-After"
_GOOD_SPAN = re.compile(rb"([0-9]{1,8})([smh]?)")
_SECONDS_BY_UNIT = {b"": 1, b"s": 1, b"m": 60, b"h": 3600}
_GOOD_KEY = re.compile(rb"[!-~]{1,255}")
# What the openai SDK waits for an answer where it does not say; nobody waits longer than the second.
_DEFAULT_TIMEOUT_S = 600.0
_MAX_TIMEOUT_S = 3600.0
_DIGEST_BYTES = 16


class CreateRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A POST, as far as it is alike for everything that can be made.

    key:            its `Idempotency-Key`
    num_retries:    how often its caller has tried before, by the count of the openai SDK
    timeout_s:      how long its caller waits for an answer before the next try
    cancel_after_s: seconds after which what it made is cancelled, by its `Cancel-After`
    """

    owner: str
    path: str
    body: bytes
    key: str | None = None
    num_retries: int = 0
    timeout_s: float = _DEFAULT_TIMEOUT_S
    cancel_after_s: int | None = None


def digest_of(create_request: CreateRequest) -> bytes:
    """What tries of the same call have in common: 16 bytes of owner, path and body."""
    digest = hashlib.blake2b(f"{create_request.owner}\0{create_request.path}\0".encode(), digest_size=_DIGEST_BYTES)
    digest.update(create_request.body)
    return digest.digest()


async def create_request_of(request: Request) -> CreateRequest:
    """The call, its body read; raises as `body_of`, and InvalidRequest for a malformed header."""
    body = await body_of(request)
    key, num_retries, timeout_s, cancel_after_s = None, 0, _DEFAULT_TIMEOUT_S, None
    for name, value in request.scope["headers"]:
        match name:
            case b"idempotency-key":
                key = _key_of(value, key)
            case b"x-stainless-retry-count":
                num_retries = _count_of(value)
            # As the SDK for Python spells it, and that for JavaScript.
            case b"x-stainless-read-timeout" | b"x-stainless-timeout":
                timeout_s = _timeout_of(value)
            case b"cancel-after":
                cancel_after_s = _cancel_after_of(value)
    return CreateRequest(
        owner=owner_of(request),
        path=request.scope["path"],
        body=body,
        key=key,
        num_retries=num_retries,
        timeout_s=timeout_s,
        cancel_after_s=cancel_after_s,
    )


def _key_of(value: bytes, replay: str | None) -> str:
    if replay is not None or _GOOD_KEY.fullmatch(value) is None:
        raise InvalidRequest(
            f"Invalid '{IDEMPOTENCY_KEY}' header: it must be given once, as 1 to 255 visible ASCII characters.",
            param=IDEMPOTENCY_KEY,
        )
    return value.decode("ascii")


def _count_of(value: bytes) -> int:
    """The number of earlier tries; a count that no SDK sends says nothing."""
    return int(value) if value.isdigit() and len(value) < 5 else 0


def _cancel_after_of(value: bytes) -> int:
    found = _GOOD_SPAN.fullmatch(value)
    seconds = int(found[1]) * _SECONDS_BY_UNIT[found[2]] if found is not None else 0
    if not 1 <= seconds <= MAX_DEADLINE_S:
        raise InvalidRequest(
            f"Invalid '{CANCEL_AFTER}' header: it must be a time of 1 second to 30 days, such as 30, 30s, 5m or 1h.",
            param=CANCEL_AFTER,
        )
    return seconds


def _timeout_of(value: bytes) -> float:
    try:
        timeout_s = float(value)
    except ValueError:
        return _DEFAULT_TIMEOUT_S
    return min(timeout_s, _MAX_TIMEOUT_S) if math.isfinite(timeout_s) and timeout_s > 0 else _DEFAULT_TIMEOUT_S
