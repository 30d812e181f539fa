"""`/v1/completions` and its asynchronous and streaming aliases."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.capacity.queue_status import queue_status_of
from api.dependencies import Query, caller_of, no_query, note_replay, note_unenforced, parse_body
from api.errors import JOB_ID
from api.jobs import stored_jobs
from api.jobs.create_request import create_request_of
from api.jobs.job_services import jobs_of
from api.jobs.replies import erased_reply, job_reply, json_reply, receipt_reply
from api.jobs.submit import Order, submit
from api.lean_route import LeanRoute
from api.protocol.answer.completion_parts import async_object
from api.protocol.completions.request import CompletionRequest
from api.routes.job_routes import create_job, read_job
from storage.contract import JobKind, JobStatus
from storage.errors import InvalidRequest

router = APIRouter(tags=["completions"], route_class=LeanRoute)


@router.post("/v1/completions")
async def create(request: Request) -> Response:
    """Create a completion: blocking, as a stream, or as the `Prefer` header says."""
    create_request = await create_request_of(request)
    return await create_job(request, create_request, await parse_body(request, CompletionRequest, create_request.body))


@router.post("/v1/streaming/completions")
async def create_stream(request: Request) -> Response:
    """Create a completion as a stream."""
    create_request = await create_request_of(request)
    return await create_job(
        request,
        create_request,
        await parse_body(request, CompletionRequest, create_request.body),
        is_always_stream=True,
    )


@router.get("/v1/completions/{completion_id}")
async def retrieve(request: Request, completion_id: str) -> Response:
    """Read a completion as it is now, or replay its stream."""
    query = Query(request, "stream", "starting_after")
    return await read_job(request, completion_id, JobKind.COMPLETION, query)


@router.delete("/v1/completions/{completion_id}")
@router.delete("/v1/async/completions/{completion_id}")
async def delete(request: Request, completion_id: str) -> Response:
    """Stop and erase a completion."""
    no_query(request)
    return await erased_reply(jobs_of(request), completion_id, caller_of(request).project, JobKind.COMPLETION)


@router.post("/v1/async/completions")
async def create_async(request: Request) -> Response:
    """Create a completion as a background job and answer at once."""
    no_query(request)
    create_request = await create_request_of(request)
    wanted = await parse_body(request, CompletionRequest, create_request.body)
    if wanted.stream:
        raise InvalidRequest("This path does not stream; stream the job from /v1/completions/{id}.", param="stream")
    wanted.check_delivery(is_stream=False)
    order = Order(
        create_request=create_request, request=wanted, is_background=True, is_followed=False, store_default=True
    )
    services = jobs_of(request)
    submitted = await submit(services, order)
    note_replay(request, submitted.is_replay)
    note_unenforced(request, submitted.unenforced)
    return receipt_reply(services, submitted, location="/v1/async/completions/")


@router.get("/v1/async/completions/{completion_id}")
async def retrieve_async(request: Request, completion_id: str) -> Response:
    """Read a background completion: its status while it runs, then the completion."""
    no_query(request)
    services = jobs_of(request)
    job = await stored_jobs.get_job(services, completion_id, caller_of(request).project, JobKind.COMPLETION)
    if job.end is not None and job.end.status in (JobStatus.COMPLETED, JobStatus.INCOMPLETE):
        return await job_reply(services, job, extra={"status": job.end.status.value})
    queue_status = queue_status_of(services.statistics, job.position, job.end)
    body = {**async_object(job.header, job.end), **queue_status.fields}
    return json_reply(body, headers={JOB_ID: completion_id, **queue_status.headers})
