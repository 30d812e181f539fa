"""What errors look like on the wire: one table of HTTP statuses, one envelope."""

from collections.abc import Mapping

import msgspec
import structlog
from redis.exceptions import RedisError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from api.protocol.envelope import INVALID_REQUEST, SERVER_ERROR, error_body
from storage import errors

_STATUSES: dict[type[errors.PlatformError], int] = {
    errors.InvalidRequest: 400,
    errors.HostNotAllowed: 403,
    errors.InvalidApiKey: 401,
    errors.JobNotFound: 404,
    errors.ModelNotFound: 404,
    errors.JobConflict: 409,
    errors.BodyTooLarge: 413,
    errors.UnsupportedMediaType: 415,
    errors.GenerationFailed: 500,
    errors.ModelUnavailable: 503,
    errors.StorageUnavailable: 503,
    errors.ShuttingDown: 503,
}
# Seconds after which a refused caller may find things better.
_RETRY_AFTER_S: dict[type[errors.PlatformError], int] = {
    errors.ModelUnavailable: 2,
    errors.StorageUnavailable: 1,
    errors.ShuttingDown: 1,
}
_WORDS = {
    404: ("Invalid URL ({method} {path})", "not_found"),
    405: ("Not allowed to {method} on {path}.", "method_not_allowed"),
}

log = structlog.get_logger()


def status_of(error: errors.PlatformError) -> int:
    """The HTTP status of an error: its own, or its nearest ancestor's."""
    for kind in type(error).__mro__:
        if kind in _STATUSES:
            return _STATUSES[kind]
    return 500


def error_response(error: errors.PlatformError, headers: Mapping[str, str] | None = None) -> Response:
    """The envelope of an error that was raised on purpose."""
    status = status_of(error)
    kind = INVALID_REQUEST if status < 500 else SERVER_ERROR
    sent = dict(headers or {})
    retry_after_s = next((_RETRY_AFTER_S[kind] for kind in type(error).__mro__ if kind in _RETRY_AFTER_S), None)
    if retry_after_s is not None:
        sent |= {"retry-after": str(retry_after_s), "retry-after-ms": str(retry_after_s * 1000)}
    if not error.retryable and status in (409, 500):
        # The SDK retries these statuses unless it is told that nothing would change.
        sent["x-should-retry"] = "false"
    return envelope(status, error_body(error.message, kind, error.param, error.code), sent)


def envelope(status: int, body: dict[str, object], headers: Mapping[str, str] | None = None) -> Response:
    """An error envelope as a response."""
    return Response(msgspec.json.encode(body), status, headers, media_type="application/json")


async def on_platform_error(_: Request, error: Exception) -> Response:
    """Answer an error that a route raised on purpose."""
    assert isinstance(error, errors.PlatformError)
    return error_response(error)


async def on_redis_error(_: Request, error: Exception) -> Response:
    """Answer that Redis is away."""
    log.warning("redis_away", error=str(error))
    return error_response(errors.StorageUnavailable("Redis does not answer; try again."))


async def on_http_error(request: Request, error: Exception) -> Response:
    """Answer what the router refused."""
    assert isinstance(error, HTTPException)
    words, code = _WORDS.get(error.status_code, (str(error.detail), "invalid_request"))
    message = words.format(method=request.method, path=request.url.path)
    body = error_body(message, INVALID_REQUEST, None, code)
    return envelope(error.status_code, body, error.headers)


def unexpected_error() -> Response:
    """The envelope of a bug; the log has its traceback."""
    return envelope(500, error_body("The server had an error. Try again.", SERVER_ERROR, None, "server_error"))


HANDLERS = {
    errors.PlatformError: on_platform_error,
    RedisError: on_redis_error,
    HTTPException: on_http_error,
}
