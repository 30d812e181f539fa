"""Request middleware: request id, processing time, authentication, and a response to every unhandled error.

Plain ASGI: Starlette's own base class for middleware costs as much as a whole accepted job.
"""

import itertools
import re
import secrets
import time

from redis.exceptions import RedisError
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import Unexpected, error_response, log_failure
from api.headers import header_of, refuse_bad_host
from api.services import Services
from storage.errors import PlatformError, StorageUnavailable

# A request id of the client is kept when it matches this.
_GOOD_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_REPLAYED = ((b"idempotent-replayed", b"true"),)
_OPEN_PATHS = frozenset({"/healthz", "/readyz"})


class RequestFrame:
    """The outermost middleware of the application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        # Request ids are not secret: a counter behind a random prefix of this process.
        self._id_head = "req_" + secrets.token_hex(8)
        self._counter = itertools.count()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        framed = _Framed(scope, send, self._request_id_of(scope))
        try:
            refuse_bad_host(scope)
            await _find_owner(scope)
            await self._app(scope, receive, framed.send)
        except ClientDisconnect:
            return
        except Exception as error:  # noqa: BLE001 - exception boundary: an unforeseen error is logged and answered
            answer = _answer_of(error)
            log_failure(answer, path=scope["path"], request_id=framed.request_id.decode())
            # A response that has begun cannot become another one; the server then closes the connection.
            if not framed.is_started:
                await error_response(answer)(scope, receive, framed.send)

    def _request_id_of(self, scope: Scope) -> bytes:
        sent = header_of(scope, b"x-request-id") or header_of(scope, b"x-client-request-id")
        if sent is not None and _GOOD_ID.fullmatch(sent):
            return sent
        return f"{self._id_head}{next(self._counter):012x}".encode()


class _Framed:
    """Response side of one request: adds the platform's headers."""

    __slots__ = ("_began", "_scope", "_send", "is_started", "request_id")

    def __init__(self, scope: Scope, send: Send, request_id: bytes) -> None:
        self._scope = scope
        self._send = send
        self._began = time.perf_counter()
        self.is_started = False
        self.request_id = request_id

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.is_started = True
            took_ms = int((time.perf_counter() - self._began) * 1000)
            message["headers"] = [
                *message["headers"],
                (b"x-request-id", self.request_id),
                (b"openai-processing-ms", b"%d" % took_ms),
                *(_REPLAYED if self._scope.get("state", {}).get("is_replay") else ()),
            ]
        await self._send(message)


async def _find_owner(scope: Scope) -> None:
    """Authenticate the request and store its owner in the scope; raises InvalidApiKey or HostNotAllowed."""
    services = scope["app"].state.services
    assert isinstance(services, Services)
    services.api_key_cache.guard(scope)
    if scope["path"] not in _OPEN_PATHS:
        scope.setdefault("state", {})["owner"] = await services.api_key_cache.owner_of(scope)


def _answer_of(error: Exception) -> PlatformError:
    if isinstance(error, PlatformError):
        return error
    if isinstance(error, RedisError):
        return StorageUnavailable(f"Redis does not answer: {error}")
    return Unexpected()
