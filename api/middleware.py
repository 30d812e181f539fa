"""Request middleware: request id, processing time, authentication, and a response to every unhandled error.

Plain ASGI: Starlette's own base class for middleware costs as much as a whole accepted job.
"""

import itertools
import re
import secrets
import time
from collections.abc import Mapping

from redis.exceptions import RedisError
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.authentication.api_keys import ApiKeyCache
from api.dependencies import UNENFORCED_STATE
from api.errors import Unexpected, error_response, log_failure
from api.headers import refuse_bad_host
from api.http.api_versions import DEPRECATION_STATE, Headers, refuse_unknown_version
from api.http.api_versions import HEADER_NAME as VERSION_HEADER
from api.http.compression import coding_of, compressed, is_compressible
from api.http.cross_origin import AllowedOrigins, preflight_response
from storage.errors import PlatformError, StorageUnavailable

# A request id of the client is kept when it matches this.
_GOOD_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_REPLAYED = ((b"idempotent-replayed", b"true"),)
# No key is needed for these, and for the files of the documentation page.
_OPEN_PATHS = frozenset({"/healthz", "/readyz", "/openapi.json", "/docs"})


class RequestFrame:
    """The outermost middleware of the application."""

    def __init__(self, app: ASGIApp, origins: AllowedOrigins) -> None:
        self._app = app
        self._origins = origins
        # Request ids are not secret: a counter behind a random prefix of this process.
        self._id_head = b"req_" + secrets.token_hex(8).encode()
        self._counter = itertools.count()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        framed = _Framed(scope, send, self._request_id_of(headers))
        if b"accept-encoding" in headers:
            framed.coding = coding_of(headers[b"accept-encoding"])
        origin = headers.get(b"origin")
        is_allowed_origin = False
        if origin is not None and self._origins.allows(origin):
            is_allowed_origin = True
            framed.more_headers = self._origins.headers_of(origin)
        try:
            refuse_bad_host(scope, headers.get(b"host"))
            if is_allowed_origin and scope["method"] == "OPTIONS" and b"access-control-request-method" in headers:
                response = preflight_response(headers.get(b"access-control-request-headers"))
                await response(scope, receive, framed.send)
                return
            refuse_unknown_version(headers.get(VERSION_HEADER), scope["query_string"])
            await _authenticate(scope, is_allowed_origin=is_allowed_origin)
            await self._app(scope, receive, framed.send)
        except ClientDisconnect:
            return
        except Exception as error:  # noqa: BLE001 - exception boundary: an unforeseen error is logged and answered
            answer = _answer_of(error)
            log_failure(answer, path=scope["path"], request_id=framed.request_id.decode())
            # A response that has begun cannot become another one; the server then closes the connection.
            if not framed.is_started:
                await error_response(answer)(scope, receive, framed.send)

    def _request_id_of(self, headers: Mapping[bytes, bytes]) -> bytes:
        sent = headers.get(b"x-request-id") or headers.get(b"x-client-request-id")
        if sent is not None and _GOOD_ID.fullmatch(sent):
            return sent
        return b"%b%012x" % (self._id_head, next(self._counter))


class _Framed:
    """Response side of one request: adds the platform's headers and compresses JSON.

    coding:       the compression that the client accepts, None for none
    more_headers: headers that every answer to this request has
    """

    __slots__ = ("_began", "_held", "_scope", "_send", "coding", "is_started", "more_headers", "request_id")

    def __init__(self, scope: Scope, send: Send, request_id: bytes) -> None:
        self._scope = scope
        self._send = send
        self._began = time.perf_counter()
        # The start of a response whose body will be compressed.
        self._held: Message | None = None
        self.coding: str | None = None
        self.more_headers: Headers = []
        self.is_started = False
        self.request_id = request_id

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._add_headers(message)
            if is_compressible(message["headers"]):
                message["headers"].append((b"vary", b"accept-encoding"))
                if self.coding is not None:
                    self._held = message
                    return
            self.is_started = True
        elif self._held is not None:
            start, body = await compressed(self._held, message["body"], self.coding or "gzip")
            self._held = None
            self.is_started = True
            await self._send(start)
            message = {**message, "body": body}
        await self._send(message)

    def _add_headers(self, message: Message) -> None:
        took_ms = int((time.perf_counter() - self._began) * 1000)
        state = self._scope["state"]
        message["headers"] = [
            *message["headers"],
            (b"x-request-id", self.request_id),
            (b"openai-processing-ms", b"%d" % took_ms),
            *(_REPLAYED if state.get("is_replay") else ()),
            *state.get(UNENFORCED_STATE, ()),
            *state.get(DEPRECATION_STATE, ()),
            *self.more_headers,
        ]


async def _authenticate(scope: Scope, *, is_allowed_origin: bool) -> None:
    """Authenticate the request and store its caller in the scope; raises InvalidApiKey or HostNotAllowed."""
    api_keys = scope["app"].state.api_keys
    assert isinstance(api_keys, ApiKeyCache)
    api_keys.guard(scope, is_allowed_origin=is_allowed_origin)
    path = scope["path"]
    if path not in _OPEN_PATHS and not path.startswith("/docs/"):
        scope["state"]["caller"] = await api_keys.caller_of(scope)


def _answer_of(error: Exception) -> PlatformError:
    if isinstance(error, PlatformError):
        return error
    if isinstance(error, RedisError):
        return StorageUnavailable(f"Redis does not answer: {error}")
    return Unexpected()
