"""The error body of every endpoint and every stream."""

from storage.contract import End, Failure, JobStatus

INVALID_REQUEST = "invalid_request_error"
SERVER_ERROR = "server_error"

_NO_REASON = Failure(code=SERVER_ERROR, message="The job failed.")


def error_body(message: str, type: str, param: str | None = None, code: str | None = None) -> dict[str, object]:  # noqa: A002
    """`{"error": {message, type, param, code}}`, all four keys present."""
    return {"error": {"message": message, "type": type, "param": param, "code": code}}


def failure_of(end: End) -> Failure:
    """The failure of a failed job; a general one where no reason was stored."""
    return end.failure or _NO_REASON


def outcome_error(end: End) -> dict[str, object] | None:
    """The error body of a job that failed or was cancelled; None for other jobs."""
    if end.status is JobStatus.CANCELLED:
        return error_body("The job was cancelled.", INVALID_REQUEST, None, "cancelled")
    if end.status is JobStatus.FAILED:
        failure = failure_of(end)
        return error_body(failure.message, SERVER_ERROR, None, failure.code)
    return None
