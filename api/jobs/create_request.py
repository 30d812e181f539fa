"""A create request: its owner, its body, and the headers for idempotency, retries and deadlines."""

import hashlib
import math
import re

import msgspec
from starlette.requests import Request

from api.authentication.caller import Caller
from api.dependencies import body_of, caller_of
from api.protocol.shared.deadline_fields import MAX_DEADLINE_S
from storage.errors import IDEMPOTENCY_KEY, InvalidRequest

CANCEL_AFTER = "Cancel-After"
_VALID_SPAN = re.compile(rb"([0-9]{1,8})([smh]?)")
_SECONDS_BY_UNIT = {b"": 1, b"s": 1, b"m": 60, b"h": 3600}
_VALID_KEY = re.compile(rb"[!-~]{1,255}")
# The openai SDK's default timeout, for requests that do not state theirs, and the longest one that is used.
_DEFAULT_TIMEOUT_S = 600.0
_MAX_TIMEOUT_S = 3600.0
_DIGEST_BYTES = 16


class CreateRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A POST that creates a resource, as far as it is the same for all resources.

    key:            its `Idempotency-Key`
    num_retries:    earlier attempts of the same request, as the openai SDK counts them
    timeout_s:      how long its client waits for a response before it retries
    cancel_after_s: seconds after which the job is cancelled, from `Cancel-After`
    """

    caller: Caller
    path: str
    body: bytes
    key: str | None = None
    num_retries: int = 0
    timeout_s: float = _DEFAULT_TIMEOUT_S
    cancel_after_s: int | None = None


def digest_of(create_request: CreateRequest) -> bytes:
    """The digest that all attempts of one request share: 16 bytes from owner, path and body."""
    digest = hashlib.blake2b(
        f"{create_request.caller.project}\0{create_request.path}\0".encode(), digest_size=_DIGEST_BYTES
    )
    digest.update(create_request.body)
    return digest.digest()


async def create_request_of(request: Request) -> CreateRequest:
    """The request with its body read; raises as `body_of`, and InvalidRequest for a malformed header."""
    body = await body_of(request)
    key, num_retries, timeout_s, cancel_after_s = None, 0, _DEFAULT_TIMEOUT_S, None
    for name, value in request.scope["headers"]:
        match name:
            case b"idempotency-key":
                key = _key_of(value, key)
            case b"x-stainless-retry-count":
                num_retries = _count_of(value)
            # The Python SDK's name, then the JavaScript SDK's.
            case b"x-stainless-read-timeout" | b"x-stainless-timeout":
                timeout_s = _timeout_of(value)
            case b"cancel-after":
                cancel_after_s = _cancel_after_of(value)
    return CreateRequest(
        caller=caller_of(request),
        path=request.scope["path"],
        body=body,
        key=key,
        num_retries=num_retries,
        timeout_s=timeout_s,
        cancel_after_s=cancel_after_s,
    )


def _key_of(value: bytes, earlier_value: str | None) -> str:
    if earlier_value is not None or _VALID_KEY.fullmatch(value) is None:
        raise InvalidRequest(
            f"Invalid '{IDEMPOTENCY_KEY}' header: it must be given once, as 1 to 255 visible ASCII characters.",
            param=IDEMPOTENCY_KEY,
        )
    return value.decode("ascii")


def _count_of(value: bytes) -> int:
    """The number of earlier attempts; a count that no SDK would send is ignored."""
    return int(value) if value.isdigit() and len(value) < 5 else 0


def _cancel_after_of(value: bytes) -> int:
    found = _VALID_SPAN.fullmatch(value)
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
