"""What surrounds every route: request id, timing, the gate, and an answer even to a bug."""

import re
import time
from collections.abc import Mapping

import structlog
from redis.exceptions import RedisError
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.auth import Gate
from api.errors import error_response, unexpected_error
from storage.errors import PlatformError
from storage.ids import new_id

# A client's own request id is kept when it can stand in a log line and a header.
_GOOD_ID = re.compile(r"[A-Za-z0-9_.:/+=-]{1,128}")
_OPEN_PATHS = frozenset({"/healthz", "/readyz"})

log = structlog.get_logger()


class Surround:
    """The outermost layer of the application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, whatever happens below."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, request_id, has_begun = time.perf_counter(), _request_id_of(Headers(scope=scope)), False

        async def send_marked(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                headers["openai-processing-ms"] = str(round((time.perf_counter() - started) * 1000))
            await send(message)

        scope.setdefault("state", {})["request_id"] = request_id
        try:
            await self._pass_gate(scope, receive, send_marked)
        except ClientDisconnect:
            pass
        except Exception as error:
            if has_begun:
                raise
            await _answer_for(error, request_id)(scope, receive, send_marked)

    async def _pass_gate(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] not in _OPEN_PATHS:
            headers = Headers(scope=scope)
            gate = scope["app"].state.services.gate
            assert isinstance(gate, Gate)
            scope["state"]["owner"] = await gate.owner_of(headers.get("authorization"), headers.get("host"))
        await self._app(scope, receive, send)


def _request_id_of(headers: Mapping[str, str]) -> str:
    given = headers.get("x-request-id") or headers.get("x-client-request-id") or ""
    return given if _GOOD_ID.fullmatch(given) else new_id("req_")


def _answer_for(error: Exception, request_id: str) -> ASGIApp:
    if isinstance(error, PlatformError):
        return error_response(error)
    if isinstance(error, RedisError):
        log.warning("redis_away", error=str(error), request_id=request_id)
    else:
        log.error("request_failed", request_id=request_id, exc_info=error)
    return unexpected_error()
