"""Create and read handlers of chat and completions: a background job is requested by the `Prefer` header."""

from fastapi import Request
from starlette.responses import Response

from api.dependencies import Query, no_query, note_replay, owner_of, services_of
from api.jobs import prefer_header, stored_jobs
from api.jobs.create_request import CreateRequest
from api.jobs.replies import OutcomeReply, job_reply, receipt_reply, replay_reply, stream_reply
from api.jobs.submit import Order, submit
from api.protocol.chat.request import ChatRequest
from api.protocol.completions.object import is_chosen_from
from api.protocol.completions.request import NOT_STREAMED, CompletionRequest
from storage.contract import JobKind
from storage.errors import InvalidRequest


async def create_job(
    request: Request,
    create_request: CreateRequest,
    wanted: ChatRequest | CompletionRequest,
    *,
    is_always_stream: bool = False,
) -> Response:
    """Submit a chat or completion job and answer with its stream, its outcome or a receipt."""
    no_query(request)
    services = services_of(request)
    preference = prefer_header.parse(request.headers.get("prefer"))
    if is_always_stream and wanted.stream is False:
        raise InvalidRequest("This path always streams.", param="stream")
    is_stream, has_preference = is_always_stream or bool(wanted.stream), preference.wait_s is not None
    if is_stream and has_preference:
        raise InvalidRequest("A stream cannot be combined with the 'Prefer' header.", param="stream")
    if is_stream and isinstance(wanted, CompletionRequest) and wanted.is_chosen_from:
        raise InvalidRequest(f"Invalid 'best_of': {NOT_STREAMED}.", param="best_of")
    order = Order(
        create_request=create_request,
        request=wanted,
        is_background=has_preference,
        is_followed=preference.wait_s != 0,
        store_default=True if has_preference else None,
    )
    submitted = await submit(services, order)
    note_replay(request, submitted.is_replay)
    if is_stream:
        return stream_reply(services, submitted)
    if preference.wait_s == 0:
        return receipt_reply(services, submitted, applied=preference.applied)
    return OutcomeReply(services, submitted, wait_s=preference.wait_s, applied=preference.applied)


async def read_job(request: Request, job_id: str, kind: JobKind) -> Response:
    """A chat or completion job as it is now, or its stream, optionally without the first chunks."""
    services = services_of(request)
    query = Query(request, "stream", "starting_after")
    job = await stored_jobs.get_job(services, job_id, owner_of(request), kind)
    if query.get_bool("stream"):
        if kind is JobKind.COMPLETION and is_chosen_from(job.header):
            raise InvalidRequest(f"Invalid 'stream': with 'best_of' {NOT_STREAMED}.", param="stream")
        after = query.get_int("starting_after", default=0, low=0, high=2**53)
        return replay_reply(services, job, starting_after=after)
    if query.get_text("starting_after") is not None:
        raise InvalidRequest("'starting_after' needs stream=true.", param="starting_after")
    return await job_reply(services, job)
