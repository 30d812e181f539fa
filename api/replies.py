"""The three ways to a submitted job's result: its stream, its outcome, or a receipt."""

import asyncio
import time
from collections.abc import Callable, Mapping

from starlette.requests import Request
from starlette.responses import Response

from api.errors import envelope
from api.protocol.completion_object import async_object
from api.protocol.envelope import outcome_error
from api.protocol.folds import fold_of, object_of, skip_of
from api.relay import Subscription
from api.services import Services
from api.sse import EventStream, until_disconnect
from api.submit import Submitted, as_json
from storage import jobs
from storage.contract import End, JobHeader, JobKind, JobStatus, LogEntry
from storage.tables import Job

_PATHS = {
    JobKind.RESPONSE: "/v1/responses/",
    JobKind.CHAT: "/v1/chat/completions/",
    JobKind.COMPLETION: "/v1/completions/",
}
# What another try of the same request would meet again.
_HOPELESS = frozenset({"numerical_error", "context_length_exceeded", "invalid_request"})
_POLL_AFTER_MS = "500"


def json_reply(value: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON body that is encoded once, by msgspec."""
    return Response(as_json(value), status, headers, media_type="application/json")


def stream_reply(services: Services, submitted: Submitted) -> Response:
    """The stream of a job just submitted; its caller's leaving cancels it, unless it is a background job."""
    header = submitted.header

    def on_leave() -> None:
        if not header.background:
            services.cancel_soon(header.job_id)

    return _stream(services, header, _required(submitted), starting_after=None, on_leave=on_leave)


def replay_reply(services: Services, job: Job, *, starting_after: int | None) -> Response:
    """The stream of a stored job from its start or from where a reader was; its leaving changes nothing."""
    subscription = services.relay.follow(job.id)
    return _stream(services, jobs.header_of(job), subscription, starting_after=starting_after, on_leave=lambda: None)


def _stream(
    services: Services,
    header: JobHeader,
    subscription: Subscription,
    *,
    starting_after: int | None,
    on_leave: Callable[[], None],
) -> Response:
    return EventStream(
        subscription,
        fold_of(header),
        skip=0 if starting_after is None else skip_of(header.kind, starting_after),
        heartbeat_s=services.settings.heartbeat_s,
        on_leave=on_leave,
    )


async def outcome_reply(
    services: Services, request: Request, submitted: Submitted, *, wait_s: int | None, applied: str = ""
) -> Response:
    """The outcome of a job; a receipt when it does not come within `wait_s` seconds.

    A caller who leaves before then cancels the job, unless it is a background job.
    """
    header, subscription = submitted.header, _required(submitted)
    entries: list[LogEntry] = []
    collecting = asyncio.create_task(_collect(subscription, entries))
    leaving = asyncio.create_task(until_disconnect(request.receive))
    try:
        await asyncio.wait([collecting, leaving], timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
        is_over, has_left = collecting.done(), leaving.done()
    finally:
        for task in (collecting, leaving):
            task.cancel()
        await asyncio.gather(collecting, leaving, return_exceptions=True)
        subscription.close()
    applied_header = {"preference-applied": applied} if applied else {}
    if is_over:
        return ended_reply(header, entries, collecting.result(), applied_header)
    if has_left and not header.background:
        services.cancel_soon(header.job_id)
    return receipt_reply(header, entries, applied_header)


def ended_reply(header: JobHeader, entries: list[LogEntry], end: End, headers: Mapping[str, str]) -> Response:
    """The answer of a blocking call: the object, or the error of a job that came to nothing."""
    sent = {"x-job-id": header.job_id, **headers}
    error = outcome_error(end)
    if error is None or (header.kind is JobKind.RESPONSE and end.status is JobStatus.CANCELLED):
        return json_reply(object_of(header, entries), headers=sent)
    status = 409 if end.status is JobStatus.CANCELLED else 500
    if status == 409 or (end.failure is not None and end.failure.code in _HOPELESS):
        sent["x-should-retry"] = "false"
    return envelope(status, error, sent)


def receipt_reply(header: JobHeader, entries: list[LogEntry], headers: Mapping[str, str]) -> Response:
    """202 and where the result will be."""
    location = {"location": _PATHS[header.kind] + header.job_id, "x-job-id": header.job_id}
    body = object_of(header, entries) if header.kind is JobKind.RESPONSE else async_object(header)
    return json_reply(body, status=202, headers={**location, "openai-poll-after-ms": _POLL_AFTER_MS, **headers})


async def _collect(subscription: Subscription, entries: list[LogEntry]) -> End:
    while True:
        entries += await subscription.read()
        end = entries[-1].end
        if end is not None:
            return end


def _required(submitted: Submitted) -> Subscription:
    assert submitted.subscription is not None
    return submitted.subscription


def processing_ms(started: float) -> str:
    """Milliseconds since a reading of the performance counter, for `openai-processing-ms`."""
    return str(round((time.perf_counter() - started) * 1000))
