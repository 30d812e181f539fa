"""Create and read handlers that all job kinds share: which of five answers a create call gets, and stored jobs."""

from fastapi import Request
from starlette.responses import Response

from api.dependencies import Query, caller_of, no_query, note_replay, note_unenforced
from api.headers import header_of
from api.http import prefer_header
from api.jobs import stored_jobs
from api.jobs.create_request import CreateRequest
from api.jobs.job_services import jobs_of
from api.jobs.replies import OutcomeReply, created_reply, job_reply, receipt_reply, replay_reply, stream_reply
from api.jobs.submit import Order, submit
from api.protocol.kinds import KINDS
from api.protocol.shared.job_request import CreateJobRequest
from storage.contract import JobKind
from storage.errors import InvalidRequest


async def create_job(
    request: Request, create_request: CreateRequest, wanted: CreateJobRequest, *, is_always_stream: bool = False
) -> Response:
    """Submit a job. The answer is its stream, its outcome, the job as it begins, or a receipt: at once or later."""
    no_query(request)
    services = jobs_of(request)
    preference = prefer_header.parse(header_of(request.scope, b"prefer"))
    if is_always_stream and wanted.stream is False:
        raise InvalidRequest("This path always streams.", param="stream")
    is_stream, has_preference = is_always_stream or bool(wanted.stream), preference.wait_s is not None
    if is_stream and has_preference:
        raise InvalidRequest("A stream cannot be combined with the 'Prefer' header.", param="stream")
    wanted.check_delivery(is_stream=is_stream)
    is_background = wanted.is_background or has_preference
    order = Order(
        create_request=create_request,
        request=wanted,
        is_background=is_background,
        is_followed=is_stream or not is_background or bool(preference.wait_s),
        store_default=True if has_preference else None,
    )
    submitted = await submit(services, order)
    note_replay(request, submitted.is_replay)
    note_unenforced(request, submitted.unenforced)
    if is_stream:
        return stream_reply(services, submitted)
    if preference.wait_s == 0:
        return receipt_reply(services, submitted, applied=preference.applied)
    if submitted.subscription is None:
        return created_reply(services, submitted)
    return OutcomeReply(services, submitted, wait_s=preference.wait_s, applied=preference.applied)


async def read_job(request: Request, job_id: str, kind: JobKind, query: Query) -> Response:
    """A stored job as it is now, or its stream from the start or from `starting_after`.

    query: `stream`, `starting_after` and others that the kind knows
    """
    services, spec = jobs_of(request), KINDS[kind]
    job = await stored_jobs.get_job(services, job_id, caller_of(request).project, kind)
    if query.get_bool("stream"):
        refusal = spec.stream_refusal(job.header)
        if refusal is not None:
            raise InvalidRequest(f"Invalid 'stream': {refusal}.", param="stream")
        first = -1 if spec.counts_from_zero else 0
        after = query.get_int("starting_after", default=first, low=first, high=2**53)
        return replay_reply(services, job, starting_after=after)
    if query.get_text("starting_after") is not None:
        raise InvalidRequest("'starting_after' needs stream=true.", param="starting_after")
    return await job_reply(services, job)
