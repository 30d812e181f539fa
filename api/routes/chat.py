"""`/v1/chat/completions`: create, and read, change and delete stored ones."""

from fastapi import APIRouter, Request
from sqlalchemy import Connection
from starlette.responses import Response

from api.dependencies import Query, body_of, caller_of, no_query, parse_body
from api.jobs import stored_jobs
from api.jobs.create_request import create_request_of
from api.jobs.job_services import jobs_of
from api.jobs.job_views import objects_of
from api.jobs.replies import encode, encoded_reply, erased_reply, object_reply, threaded_reply
from api.lean_route import LeanRoute
from api.protocol.chat.object import messages_of
from api.protocol.chat.request import ChatRequest, MetadataUpdate
from api.protocol.shared.lists import list_object, page_of
from api.routes.job_routes import create_job, read_job
from storage.contract import JobKind
from storage.jobs import jobs, stored_lists

router = APIRouter(tags=["chat"], route_class=LeanRoute)


@router.post("/v1/chat/completions")
async def create(request: Request) -> Response:
    """Create a chat completion: blocking, as a stream, or as the `Prefer` header says."""
    create_request = await create_request_of(request)
    return await create_job(request, create_request, await parse_body(request, ChatRequest, create_request.body))


@router.post("/v1/streaming/chat")
async def create_stream(request: Request) -> Response:
    """Create a chat completion as a stream."""
    create_request = await create_request_of(request)
    return await create_job(
        request, create_request, await parse_body(request, ChatRequest, create_request.body), is_always_stream=True
    )


@router.get("/v1/chat/completions")
async def list_stored(request: Request) -> Response:
    """List stored chat completions."""
    query = Query(request, "model", "metadata", "after", "limit", "order", ignores_unknown=True)
    owner, page = caller_of(request).project, query.get_page(order="asc", id_prefix=JobKind.CHAT.prefix)
    metadata, model = query.get_pairs("metadata"), query.get_text("model")

    def read(connection: Connection) -> bytes:
        found = stored_lists.list_chats(
            connection,
            owner,
            model=model,
            metadata=metadata,
            after=page.after,
            limit=page.limit + 1,
            is_newest_first=page.is_newest_first,
        )
        return encode(list_object(objects_of(found[: page.limit]), has_more=len(found) > page.limit))

    return encoded_reply(await jobs_of(request).database.reads.search(read))


@router.get("/v1/chat/completions/{completion_id}")
async def retrieve(request: Request, completion_id: str) -> Response:
    """Read a chat completion as it is now, or replay its stream."""
    query = Query(request, "stream", "starting_after", ignores_unknown=True)
    return await read_job(request, completion_id, JobKind.CHAT, query)


@router.post("/v1/chat/completions/{completion_id}")
async def update(request: Request, completion_id: str) -> Response:
    """Replace the metadata of a stored chat completion."""
    no_query(request)
    services, owner = jobs_of(request), caller_of(request).project
    metadata = (await parse_body(request, MetadataUpdate, await body_of(request))).metadata or {}
    # Raises JobNotFound for the jobs of others and for other kinds.
    await stored_jobs.get_job(services, completion_id, owner, JobKind.CHAT)
    await services.database.write_promptly(
        lambda connection: jobs.update_metadata(connection, completion_id, owner, metadata)
    )
    job = await stored_jobs.get_job(services, completion_id, owner, JobKind.CHAT)
    return await object_reply(services, job)


@router.delete("/v1/chat/completions/{completion_id}")
async def delete(request: Request, completion_id: str) -> Response:
    """Stop and erase a chat completion."""
    no_query(request)
    return await erased_reply(jobs_of(request), completion_id, caller_of(request).project, JobKind.CHAT)


@router.get("/v1/chat/completions/{completion_id}/messages")
async def list_messages(request: Request, completion_id: str) -> Response:
    """List the input messages of a chat completion."""
    query = Query(request, "limit", "order", "after", ignores_unknown=True)
    services, page = jobs_of(request), query.get_page(order="asc")
    job = await stored_jobs.get_job(services, completion_id, caller_of(request).project, JobKind.CHAT)
    return await threaded_reply(services.cpu_bound, lambda: page_of(messages_of(job.header), page))
