"""One POST that makes something: whose it is, what it sends, and what its headers say about earlier tries of it."""

import hashlib
import math
import re

import msgspec
from starlette.requests import Request

from api.dependencies import body_of, owner_of
from storage.errors import IDEMPOTENCY_KEY, InvalidRequest

_GOOD_KEY = re.compile(rb"[!-~]{1,255}")
# What the openai SDK waits for an answer where it does not say; nobody waits longer than the second.
_DEFAULT_TIMEOUT_S = 600.0
_MAX_TIMEOUT_S = 3600.0
_DIGEST_BYTES = 16


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A POST, as far as it is alike for everything that can be made.

    key:         its `Idempotency-Key`
    num_retries: how often its caller has tried before, by the count of the openai SDK
    timeout_s:   how long its caller waits for an answer before the next try
    """

    owner: str
    path: str
    body: bytes
    key: str | None = None
    num_retries: int = 0
    timeout_s: float = _DEFAULT_TIMEOUT_S


def digest_of(call: Call) -> bytes:
    """What tries of the same call have in common: 16 bytes of owner, path and body."""
    digest = hashlib.blake2b(f"{call.owner}\0{call.path}\0".encode(), digest_size=_DIGEST_BYTES)
    digest.update(call.body)
    return digest.digest()


async def call_of(request: Request) -> Call:
    """The call, its body read; raises as `body_of`, and InvalidRequest for a malformed key."""
    body = await body_of(request)
    key, num_retries, timeout_s = None, 0, _DEFAULT_TIMEOUT_S
    for name, value in request.scope["headers"]:
        match name:
            case b"idempotency-key":
                key = _key_of(value, key)
            case b"x-stainless-retry-count":
                num_retries = _count_of(value)
            case b"x-stainless-read-timeout":
                timeout_s = _timeout_of(value)
    return Call(
        owner=owner_of(request),
        path=request.scope["path"],
        body=body,
        key=key,
        num_retries=num_retries,
        timeout_s=timeout_s,
    )


def _key_of(value: bytes, earlier: str | None) -> str:
    if earlier is not None or _GOOD_KEY.fullmatch(value) is None:
        raise InvalidRequest(
            f"Invalid '{IDEMPOTENCY_KEY}' header: it must be given once, as 1 to 255 visible ASCII characters.",
            param=IDEMPOTENCY_KEY,
        )
    return value.decode("ascii")


def _count_of(value: bytes) -> int:
    """The number of earlier tries; a count that no SDK sends says nothing."""
    return int(value) if value.isdigit() and len(value) < 5 else 0


def _timeout_of(value: bytes) -> float:
    try:
        timeout_s = float(value)
    except ValueError:
        return _DEFAULT_TIMEOUT_S
    return min(timeout_s, _MAX_TIMEOUT_S) if math.isfinite(timeout_s) and timeout_s > 0 else _DEFAULT_TIMEOUT_S
