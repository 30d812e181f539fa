"""`/v1/batches`: create, list, read, cancel, retry, and the requests of a batch."""

from functools import partial

from fastapi import APIRouter, Request
from sqlalchemy import Connection
from starlette.responses import Response

from api.batches.batch_objects import batch_object, request_object
from api.batches.inline_requests import InlineInputs, lines_of
from api.batches.new_batches import insert_batch, insert_retry
from api.dependencies import Query, caller_of, no_query, note_replay, parse_body
from api.jobs.create_request import CreateRequest, create_request_of
from api.jobs.idempotent_replay import make_once
from api.jobs.job_services import JobServices, jobs_of
from api.jobs.replies import encode, encoded_reply, json_reply
from api.lean_route import LeanRoute
from api.protocol.batches.request import BatchRetry, NewBatch
from api.protocol.batches.result_lines import line_of_request
from api.protocol.kinds import ENDPOINTS
from api.protocol.shared.lists import list_object
from storage.batches import batch_lines, batch_rows
from storage.batches.batch_states import LineStatus
from storage.batches.tables import Batch
from storage.errors import InvalidRequest
from storage.files import stored_files
from storage.ids import new_id

_PREFIX = "batch_"

router = APIRouter(prefix="/v1/batches", tags=["batches"], route_class=LeanRoute)


@router.post("")
async def create(request: Request) -> Response:
    """Create a batch of an uploaded file, or of requests in the body. It is validated afterwards."""
    no_query(request)
    services, create_request = jobs_of(request), await create_request_of(request)
    wanted = await parse_body(request, NewBatch, create_request.body)
    if wanted.endpoint not in ENDPOINTS:
        known = ", ".join(ENDPOINTS)
        raise InvalidRequest(f"Invalid 'endpoint': it must be one of {known}.", param="endpoint")
    batch_id, now, caller = new_id(_PREFIX), services.database.clock.now(), create_request.caller
    file_id = wanted.input_file_id or await _write_inline(request, services, create_request, wanted)

    def make(c: Connection) -> Batch:
        if wanted.requests is not None:
            stored_files.finish(c, file_id, now)
        return insert_batch(c, batch_id, caller, wanted, file_id, now)

    find = partial(_find, owner=caller.project)
    kept_id: str | None = None
    try:
        made, is_replay = await make_once(services, create_request, batch_id, make=make, find=find)
        kept_id = made.input_file_id
    finally:
        if wanted.requests is not None and kept_id != file_id:
            await services.cpu_bound.run(partial(_inputs_of(request).give_up, file_id))
    note_replay(request, is_replay)
    return json_reply(batch_object(made, {}))


@router.get("")
async def list_batches(request: Request) -> Response:
    """List batches, the newest first."""
    query = Query(request, "after", "limit", ignores_unknown=True)
    owner, page = caller_of(request).project, query.get_page(order="desc", id_prefix=_PREFIX)

    def read(c: Connection) -> bytes:
        found = batch_rows.list_batches(c, owner, after=page.after, limit=page.limit + 1)
        shown = found[: page.limit]
        counts = batch_rows.count_lines(c, [batch.id for batch in shown if batch.num_completed is None])
        objects = [batch_object(batch, counts.get(batch.id, {})) for batch in shown]
        return encode(list_object(objects, has_more=len(found) > page.limit))

    return encoded_reply(await jobs_of(request).database.reads.search(read))


@router.get("/{batch_id}")
async def retrieve(request: Request, batch_id: str) -> Response:
    """Read a batch as it is now."""
    owner = caller_of(request).project
    return json_reply(
        await jobs_of(request).database.reads.ask(lambda c: _shown(c, batch_rows.get(c, batch_id, owner)))
    )


@router.post("/{batch_id}/cancel")
async def cancel(request: Request, batch_id: str) -> Response:
    """Cancel a batch. Requests that run may go on for ten minutes; what was done is kept."""
    no_query(request)
    database = jobs_of(request).database
    owner, now = caller_of(request).project, database.clock.now()
    shown = await database.write_promptly(lambda c: _shown(c, batch_rows.cancel(c, batch_id, owner, now)))
    return json_reply(shown)


@router.post("/{batch_id}/retry")
async def retry(request: Request, batch_id: str) -> Response:
    """Create a batch of the requests that failed, expired or were cancelled."""
    no_query(request)
    services, create_request = jobs_of(request), await create_request_of(request)
    # The body may be absent.
    wanted = await parse_body(request, BatchRetry, create_request.body or b"{}")
    new_batch_id, now, caller = new_id(_PREFIX), services.database.clock.now(), create_request.caller

    def make(c: Connection) -> Batch:
        return insert_retry(c, new_batch_id, caller, batch_id, wanted.completion_window, now)

    find = partial(_find, owner=caller.project)
    made, is_replay = await make_once(services, create_request, new_batch_id, make=make, find=find)
    note_replay(request, is_replay)
    return json_reply(batch_object(made, {}))


@router.get("/{batch_id}/requests")
async def list_requests(request: Request, batch_id: str) -> Response:
    """List the requests of a batch in the order of its file, with their jobs, while it runs and afterwards."""
    query = Query(request, "after", "limit", "status", ignores_unknown=True)
    owner, page, status = caller_of(request).project, query.get_page(order="asc"), _status_of(query)
    after = 0 if page.after is None else line_of_request(page.after, batch_id)
    if after is None:
        raise InvalidRequest("Invalid 'after': it must be the id of a request of this batch.", param="after")

    def read(c: Connection) -> bytes:
        batch = batch_rows.get(c, batch_id, owner)
        # Lines of a batch that did not begin are no requests of it.
        limit = 0 if batch.in_progress_at is None else page.limit + 1
        found = batch_lines.list_lines(c, batch_id, after=after, limit=limit, status=status)
        return encode(list_object(list(map(request_object, found[: page.limit])), has_more=len(found) > page.limit))

    return encoded_reply(await jobs_of(request).database.reads.search(read))


async def _write_inline(
    request: Request, services: JobServices, create_request: CreateRequest, wanted: NewBatch
) -> str:
    """The id of an unfinished file with the requests of the body."""
    inputs = _inputs_of(request)
    models = services.catalogue.statuses.keys()
    now = services.database.clock.now()

    def work() -> str:
        lines = lines_of(wanted.requests or (), wanted.endpoint, models.__contains__)
        return inputs.write(create_request.caller.project, lines, now)

    return await services.cpu_bound.run(work)


def _inputs_of(request: Request) -> InlineInputs:
    inputs = request.scope["app"].state.inline_inputs
    assert isinstance(inputs, InlineInputs)
    return inputs


def _find(c: Connection, batch_id: str, owner: str) -> Batch:
    return batch_rows.get(c, batch_id, owner)


def _shown(c: Connection, batch: Batch) -> dict[str, object]:
    counts = {} if batch.num_completed is not None else batch_rows.count_lines(c, [batch.id])[batch.id]
    return batch_object(batch, counts)


def _status_of(query: Query) -> LineStatus | None:
    value = query.get_text("status")
    if value is not None and value not in list(LineStatus):
        raise InvalidRequest(f"Invalid 'status': it must be one of {', '.join(LineStatus)}.", param="status")
    return None if value is None else LineStatus(value)
