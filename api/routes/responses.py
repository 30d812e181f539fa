"""`/v1/responses`: create, list, read, replay, cancel, delete."""

from collections.abc import Sequence

from fastapi import APIRouter, Request
from sqlalchemy import Connection
from starlette.responses import Response

from api.dependencies import Query, body_of, caller_of, no_query, parse_body
from api.jobs import stored_jobs
from api.jobs.create_request import create_request_of
from api.jobs.job_services import jobs_of
from api.jobs.job_views import input_items, objects_of
from api.jobs.replies import encode, encoded_reply, erased_reply, job_reply, json_reply, object_reply, threaded_reply
from api.jobs.submit import find_previous, thought_key_of
from api.lean_route import LeanRoute
from api.protocol.responses.included import INCLUDED_LOGPROBS, INCLUDED_THOUGHTS
from api.protocol.responses.prepare import count_input_tokens
from api.protocol.responses.request import InputTokensRequest, ResponseMove, ResponseRequest
from api.protocol.shared.lists import list_object, page_of
from api.routes.job_routes import create_job, read_job
from storage.contract import JobKind, JobStatus
from storage.errors import UnsupportedParameter
from storage.jobs import stored_lists

router = APIRouter(prefix="/v1/responses", tags=["responses"], route_class=LeanRoute)


@router.post("")
async def create(request: Request) -> Response:
    """Create a response: blocking, as a stream, in the background, or as a stream of a background job."""
    create_request = await create_request_of(request)
    return await create_job(request, create_request, await parse_body(request, ResponseRequest, create_request.body))


@router.get("")
async def list_stored(request: Request) -> Response:
    """List stored responses."""
    query = Query(request, "model", "status", "metadata", "after", "limit", "order", ignores_unknown=True)
    owner, page = caller_of(request).project, query.get_page(order="desc", id_prefix=JobKind.RESPONSE.prefix)
    metadata, model = query.get_pairs("metadata"), query.get_text("model")
    status = query.get_choice("status", [status.value for status in JobStatus])

    def read(connection: Connection) -> bytes:
        found = stored_lists.list_responses(
            connection,
            owner,
            status=None if status is None else JobStatus(status),
            model=model,
            metadata=metadata,
            after=page.after,
            limit=page.limit + 1,
            is_newest_first=page.is_newest_first,
        )
        return encode(list_object(objects_of(found[: page.limit]), has_more=len(found) > page.limit))

    return encoded_reply(await jobs_of(request).database.reads.search(read))


@router.post("/input_tokens")
async def count_tokens(request: Request) -> Response:
    """Count the prompt tokens of a request."""
    no_query(request)
    services, body = jobs_of(request), await body_of(request)
    wanted = await parse_body(request, InputTokensRequest, body)
    tools = await services.catalogue.tools_of(await services.catalogue.get(wanted.model))
    previous = await find_previous(services, caller_of(request).project, wanted, num_bytes=len(body), is_turn=False)
    key = thought_key_of(services.settings, caller_of(request).project, wanted.model)
    count = await services.cpu_bound.run(lambda: count_input_tokens(wanted, tools, previous=previous, thought_key=key))
    return json_reply(count)


@router.get("/{response_id}")
async def retrieve(request: Request, response_id: str) -> Response:
    """Read a response as it is now, or replay its stream."""
    query = Query(request, "stream", "starting_after", "include", "include_obfuscation", ignores_unknown=True)
    # Log probabilities and signed thoughts are shown whenever the create request asked for them.
    _refuse_extras(query, but=(INCLUDED_LOGPROBS, INCLUDED_THOUGHTS))
    return await read_job(request, response_id, JobKind.RESPONSE, query)


@router.post("/{response_id}")
async def move(request: Request, response_id: str) -> Response:
    """Move a queued response to another service tier or priority."""
    no_query(request)
    services, owner = jobs_of(request), caller_of(request).project
    wanted = await parse_body(request, ResponseMove, await body_of(request))
    job = await stored_jobs.get_job(services, response_id, owner, JobKind.RESPONSE)
    return await job_reply(services, await stored_jobs.move_response(services, job, owner, wanted))


@router.delete("/{response_id}")
async def delete(request: Request, response_id: str) -> Response:
    """Stop and erase a response."""
    no_query(request)
    return await erased_reply(jobs_of(request), response_id, caller_of(request).project, JobKind.RESPONSE)


@router.post("/{response_id}/cancel")
async def cancel(request: Request, response_id: str) -> Response:
    """Cancel a background response; a second time changes nothing."""
    no_query(request)
    services, owner = jobs_of(request), caller_of(request).project
    job = await stored_jobs.get_job(services, response_id, owner, JobKind.RESPONSE)
    job = await stored_jobs.cancel_response(services, job, owner)
    return await object_reply(services, job)


@router.get("/{response_id}/input_items")
async def list_input_items(request: Request, response_id: str) -> Response:
    """List the input items of a response, previous turns included."""
    query = Query(request, "limit", "order", "after", "include", ignores_unknown=True)
    _refuse_extras(query)
    services, owner, page = jobs_of(request), caller_of(request).project, query.get_page(order="desc")
    items = await services.database.reads.ask(lambda connection: input_items(connection, response_id, owner))
    return await threaded_reply(services.cpu_bound, lambda: page_of(items, page))


def _refuse_extras(query: Query, *, but: Sequence[str] = ()) -> None:
    for value in query.get_list("include"):
        if value not in but:
            raise UnsupportedParameter(f"Including '{value[:100]}' is not supported here yet.", param="include")
    if query.get_bool("include_obfuscation"):
        raise UnsupportedParameter("Obfuscation is not supported here.", param="include_obfuscation")
