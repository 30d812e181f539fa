"""The one table from errors to HTTP: status, OpenAI's error type, headers. No route builds an error response."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import msgspec
import structlog
from starlette.responses import Response

from api.protocol.shared.envelope import INVALID_REQUEST, SERVER_ERROR, error_body
from storage.contract import Failure
from storage.errors import (
    BatchConflict,
    BatchNotFound,
    BodyTooLarge,
    Busy,
    ConversationItemNotFound,
    ConversationLocked,
    ConversationNotFound,
    FileInUse,
    FileNotFound,
    FormatUnknown,
    GenerationFailed,
    HostNotAllowed,
    IdempotencyKeyInUse,
    IdempotencyKeyReused,
    InvalidApiKey,
    InvalidRequest,
    JobConflict,
    JobNotFound,
    ModelLoadFailed,
    ModelNotFound,
    ModelUnavailable,
    Overloaded,
    PlatformError,
    ShuttingDown,
    StorageUnavailable,
    TooManyFailedLogins,
    TooManyTransfers,
    TooManyWaiting,
    UnsupportedMediaType,
    UploadInterrupted,
)
from storage.webhooks.errors import (
    WebhookDeliveryNotFound,
    WebhookEndpointDisabled,
    WebhookEndpointNotFound,
    WebhookUnanswered,
)

# OpenAI's error type for rate limits.
_TOO_MANY_REQUESTS = "requests"
# The header that names the job behind an answer.
JOB_ID = "x-job-id"

log = structlog.get_logger()


class PathNotFound(PlatformError):
    """No route has this path."""

    code = "unknown_url"


class MalformedRequest(InvalidRequest):
    """The bytes are not an HTTP/1.1 request that this server accepts."""

    code = "malformed_request"


class HeadTooLarge(PlatformError):
    """The request's head has too many bytes or too many headers."""

    code = "headers_too_large"


class RequestTimeout(PlatformError):
    """The client did not send the whole request before its deadline."""

    code = "request_timeout"


class TooManyConnections(PlatformError):
    """The process has as many open connections as it may have."""

    code = "too_many_connections"
    retryable = True


class TooManyConnectionsOfAddress(TooManyConnections):
    """The client's address has as many open connections as it may have."""


class MethodNotAllowed(PlatformError):
    """The path is known, the method is not."""

    code = "method_not_allowed"

    def __init__(self, message: str, *, allowed: Sequence[str] = ()) -> None:
        """allowed: the methods that the path has"""
        super().__init__(message)
        self.allowed = allowed


class JobCancelled(PlatformError):
    """The job that a request waited for was cancelled."""

    code = "cancelled"

    def __init__(self, job_id: str) -> None:
        super().__init__("The job was cancelled.")
        self.job_id = job_id


class JobFailed(GenerationFailed):
    """The job that a request waited for failed; `failure` is the job's own."""

    def __init__(self, job_id: str, failure: Failure) -> None:
        super().__init__(failure.message)
        self.job_id = job_id
        self.failure = failure


class JobExpired(JobFailed):
    """The job that a request waited for passed its deadline."""


class Answer(msgspec.Struct, frozen=True):
    """HTTP status, OpenAI error type and `Retry-After` of an error."""

    status: int
    type: str = INVALID_REQUEST
    retry_after_s: float | None = None


# An error gets the answer of the nearest ancestor of its class.
_TABLE: dict[type[PlatformError], Answer] = {
    InvalidRequest: Answer(400),
    InvalidApiKey: Answer(401),
    HostNotAllowed: Answer(403),
    JobNotFound: Answer(404),
    ConversationNotFound: Answer(404),
    ConversationItemNotFound: Answer(404),
    BatchNotFound: Answer(404),
    ModelNotFound: Answer(404),
    WebhookEndpointNotFound: Answer(404),
    WebhookDeliveryNotFound: Answer(404),
    FileNotFound: Answer(404),
    PathNotFound: Answer(404),
    MethodNotAllowed: Answer(405),
    JobConflict: Answer(409),
    BatchConflict: Answer(409),
    JobCancelled: Answer(409),
    ConversationLocked: Answer(409, retry_after_s=1),
    IdempotencyKeyInUse: Answer(409, retry_after_s=1),
    IdempotencyKeyReused: Answer(422),
    WebhookEndpointDisabled: Answer(409),
    FileInUse: Answer(409),
    BodyTooLarge: Answer(413),
    UnsupportedMediaType: Answer(415),
    HeadTooLarge: Answer(431),
    RequestTimeout: Answer(408),
    TooManyConnections: Answer(503, SERVER_ERROR, retry_after_s=1),
    TooManyConnectionsOfAddress: Answer(429, _TOO_MANY_REQUESTS, retry_after_s=1),
    WebhookUnanswered: Answer(424),
    GenerationFailed: Answer(500, SERVER_ERROR),
    JobExpired: Answer(504, SERVER_ERROR),
    TooManyFailedLogins: Answer(429, _TOO_MANY_REQUESTS),
    TooManyTransfers: Answer(429, _TOO_MANY_REQUESTS),
    TooManyWaiting: Answer(429, _TOO_MANY_REQUESTS),
    Overloaded: Answer(503, SERVER_ERROR),
    # A dead worker is restarted or declared dead within about one lease.
    ModelUnavailable: Answer(503, SERVER_ERROR, retry_after_s=5),
    ModelLoadFailed: Answer(503, SERVER_ERROR),
    StorageUnavailable: Answer(503, SERVER_ERROR, retry_after_s=1),
    FormatUnknown: Answer(503, SERVER_ERROR, retry_after_s=1),
    ShuttingDown: Answer(503, SERVER_ERROR, retry_after_s=1),
    UploadInterrupted: Answer(503, SERVER_ERROR, retry_after_s=1),
}
_UNEXPECTED = Answer(500, SERVER_ERROR)


class Unexpected(PlatformError):
    """An unforeseen error; its text goes to the log and not to the client."""

    code = SERVER_ERROR
    MESSAGE: ClassVar[str] = "The server had an error while processing your request. Sorry about that!"

    def __init__(self) -> None:
        super().__init__(self.MESSAGE)


def answer_of(error: PlatformError) -> Answer:
    """The answer to an error; a class that is not in the table is a server error."""
    return answer_to(type(error))


def answer_to(kind: type[PlatformError]) -> Answer:
    """The answer to errors of that class."""
    for ancestor in kind.__mro__:
        if ancestor in _TABLE:
            return _TABLE[ancestor]
    return _UNEXPECTED


def envelope_of(error: PlatformError) -> dict[str, object]:
    """The error body of every route and every stream."""
    return error_body(error.message, answer_of(error).type, error.param, code_of(error))


def code_of(error: PlatformError) -> str:
    """The error's code; for a failed job, the code of its failure."""
    return error.failure.code if isinstance(error, JobFailed) else error.code


def error_response(error: PlatformError, headers: Mapping[str, str] | None = None) -> Response:
    """The HTTP response to a request that raised `error`."""
    answer = answer_of(error)
    return Response(
        msgspec.json.encode(envelope_of(error)),
        answer.status,
        {**headers_of(error, answer), **(headers or {})},
        "application/json",
    )


def headers_of(error: PlatformError, answer: Answer) -> dict[str, str]:
    """The headers of an error response, without content type and length."""
    headers = {}
    retry_after_s = error.retry_after_s if isinstance(error, Busy) else answer.retry_after_s
    if retry_after_s is not None:
        headers["retry-after"] = f"{retry_after_s:.0f}"
        headers["retry-after-ms"] = f"{retry_after_s * 1000:.0f}"
    elif answer.status in (409, 500, 504) or isinstance(error, ModelLoadFailed):
        # SDKs retry these by themselves: without success, or with a second job that costs as much as the first.
        headers["x-should-retry"] = "false"
    if answer.status == 401:
        headers["www-authenticate"] = "Bearer"
    if isinstance(error, MethodNotAllowed) and error.allowed:
        headers["allow"] = ", ".join(error.allowed)
    if isinstance(error, JobFailed | JobCancelled):
        headers[JOB_ID] = error.job_id
    return headers


def log_failure(error: PlatformError, *, path: str, request_id: str) -> None:
    """Log what an operator should see; call it where the error is handled."""
    if isinstance(error, Unexpected):
        log.exception("request_failed_unexpectedly", request_id=request_id, path=path)
    # Overload refusals come by the thousand and are not logged one by one.
    elif answer_of(error).status >= 500 and not isinstance(error, Busy):
        log.warning("request_failed", code=code_of(error), error=error.message, path=path, request_id=request_id)
