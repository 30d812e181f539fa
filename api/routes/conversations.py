"""`/v1/conversations`: create, read, change, delete, and the items of each."""

from collections.abc import Callable, Collection
from datetime import UTC, datetime
from typing import TypeVar

from fastapi import APIRouter, Request
from sqlalchemy import Connection
from starlette.responses import Response

from api.dependencies import Query, body_of, caller_of, no_query, note_replay, parse_body
from api.jobs.create_request import create_request_of
from api.jobs.idempotent_replay import make_once
from api.jobs.job_services import JobServices, jobs_of
from api.jobs.job_views import is_of_open_turn
from api.jobs.replies import json_reply, threaded_reply
from api.jobs.submit import thought_key_of
from api.lean_route import LeanRoute
from api.protocol.conversations.object import conversation_object, deleted_conversation, payloads_of, shown_item
from api.protocol.conversations.request import ConversationUpdate, NewConversation, NewItems
from api.protocol.responses.included import INCLUDED_LOGPROBS, INCLUDED_THOUGHTS
from api.protocol.responses.stored_items import AnyItem
from api.protocol.shared.lists import list_object
from storage.conversations import conversation_items, conversation_rows
from storage.conversations.conversation_items import NewItem
from storage.conversations.conversation_rows import ConversationRow
from storage.errors import UnsupportedParameter
from storage.ids import new_id
from storage.turns import turns

router = APIRouter(prefix="/v1/conversations", tags=["conversations"], route_class=LeanRoute)

T = TypeVar("T")


@router.post("")
async def create(request: Request) -> Response:
    """Create a conversation, with up to 20 items."""
    no_query(request)
    services, create_request = jobs_of(request), await create_request_of(request)
    wanted, owner = await parse_body(request, NewConversation, create_request.body), create_request.caller.project
    items = await _new_items(services, wanted.items or [], owner)
    conversation_id, now = new_id("conv_"), datetime.now(UTC)

    def put(connection: Connection) -> ConversationRow:
        made = conversation_rows.create(connection, conversation_id, owner, wanted.metadata or {}, now)
        return conversation_items.add(connection, made, items, max_bytes=services.settings.max_chain_bytes)

    def find(connection: Connection, known_id: str) -> ConversationRow:
        return conversation_rows.get(connection, known_id, owner)

    made, is_replay = await make_once(services, create_request, conversation_id, make=put, find=find)
    note_replay(request, is_replay)
    return json_reply(_object_of(made))


@router.get("/{conversation_id}")
async def retrieve(request: Request, conversation_id: str) -> Response:
    """Read a conversation."""
    return json_reply(_object_of(await _find(request, conversation_id)))


@router.post("/{conversation_id}")
async def update(request: Request, conversation_id: str) -> Response:
    """Replace the metadata of a conversation."""
    no_query(request)
    wanted = await parse_body(request, ConversationUpdate, await body_of(request))
    metadata = wanted.metadata or {}
    changed = await _change(
        request,
        conversation_id,
        lambda connection, row: conversation_rows.update_metadata(connection, row.id, row.owner, metadata),
    )
    return json_reply(_object_of(changed))


@router.delete("/{conversation_id}")
async def delete(request: Request, conversation_id: str) -> Response:
    """Delete a conversation with its items."""
    no_query(request)
    now = jobs_of(request).database.clock.now()
    await _change(
        request,
        conversation_id,
        lambda connection, row: conversation_rows.delete_whole(connection, row.id, row.owner, now),
    )
    return json_reply(deleted_conversation(conversation_id))


@router.post("/{conversation_id}/items")
async def create_items(request: Request, conversation_id: str) -> Response:
    """Add up to 20 items at the end of a conversation, behind a turn that is open."""
    include = _included(Query(request, "include"))
    services = jobs_of(request)
    create_request = await create_request_of(request)
    wanted, owner = await parse_body(request, NewItems, create_request.body), create_request.caller.project
    items = await _new_items(services, wanted.items, owner)
    await _find(request, conversation_id)

    def put(connection: Connection) -> list[conversation_items.Payload]:
        row = conversation_rows.lock(connection, conversation_id, owner)
        is_reserved, max_bytes = is_of_open_turn(connection, row.id), services.settings.max_chain_bytes
        conversation_items.add(connection, row, items, max_bytes=max_bytes, is_reserved=is_reserved)
        return [item.payload for item in items]

    def find(connection: Connection, known_id: str) -> list[conversation_items.Payload]:
        return conversation_items.list_added(connection, known_id, len(items))

    made_id = conversation_items.key_of(conversation_id, items[0].item_id)
    added, is_replay = await make_once(services, create_request, made_id, make=put, find=find)
    note_replay(request, is_replay)
    shown = [shown_item(item, include) for item in added]
    return await threaded_reply(services.cpu_bound, lambda: list_object(shown, has_more=False))


@router.get("/{conversation_id}/items")
async def list_items(request: Request, conversation_id: str) -> Response:
    """List the items of a conversation."""
    query = Query(request, "limit", "order", "after", "include", ignores_unknown=True)
    services, owner, page = jobs_of(request), caller_of(request).project, query.get_page(order="desc")
    include = _included(query)

    def read(connection: Connection) -> conversation_items.ItemPage:
        row = conversation_rows.get(connection, conversation_id, owner)
        # Who follows a conversation forwards must not pass the place of a turn whose items are still to come.
        turn = None if page.is_newest_first else turns.find_open(connection, row.id)
        return conversation_items.list_page(
            connection,
            row.id,
            after=page.after,
            limit=page.limit,
            is_newest_first=page.is_newest_first,
            before=None if turn is None else turn.position,
        )

    found = await services.database.reads.ask(read)
    return await threaded_reply(
        services.cpu_bound,
        lambda: list_object([shown_item(item, include) for item in found.items], has_more=found.has_more),
    )


@router.get("/{conversation_id}/items/{item_id}")
async def retrieve_item(request: Request, conversation_id: str, item_id: str) -> Response:
    """Read an item of a conversation."""
    include = _included(Query(request, "include", ignores_unknown=True))
    services, owner = jobs_of(request), caller_of(request).project

    def read(connection: Connection) -> conversation_items.Payload:
        row = conversation_rows.get(connection, conversation_id, owner)
        return conversation_items.get_item(connection, row.id, item_id)

    found = await services.database.reads.ask(read)
    return await threaded_reply(services.cpu_bound, lambda: shown_item(found, include))


@router.delete("/{conversation_id}/items/{item_id}")
async def delete_item(request: Request, conversation_id: str, item_id: str) -> Response:
    """Delete an item of a conversation; the answer is the conversation."""
    no_query(request)

    def remove(connection: Connection, row: ConversationRow) -> ConversationRow:
        conversation_items.delete_item(connection, row, item_id)
        return row

    return json_reply(_object_of(await _change(request, conversation_id, remove)))


async def _find(request: Request, conversation_id: str) -> ConversationRow:
    owner = caller_of(request).project
    return await jobs_of(request).database.reads.ask(
        lambda connection: conversation_rows.get(connection, conversation_id, owner)
    )


async def _change(request: Request, conversation_id: str, change: Callable[[Connection, ConversationRow], T]) -> T:
    """What `change` returns; it gets the conversation locked. Raises ConversationNotFound."""
    # A read refuses unknown ids, so that they cost no write transaction.
    owner = (await _find(request, conversation_id)).owner
    return await jobs_of(request).database.write_promptly(
        lambda connection: change(connection, conversation_rows.lock(connection, conversation_id, owner))
    )


async def _new_items(services: JobServices, items: list[AnyItem], owner: str) -> list[NewItem]:
    """The items as they are stored. A signed thought may be of any model."""
    keys = [thought_key_of(services.settings, owner, entry.model) for entry in services.catalogue.entries]
    known = [key for key in keys if key is not None]
    return await services.cpu_bound.run(lambda: conversation_items.new_items(payloads_of(items, thought_keys=known)))


def _included(query: Query) -> Collection[str]:
    """What `include` asks for; UnsupportedParameter for a value that is not known here."""
    include = query.get_list("include")
    for value in include:
        if value not in (INCLUDED_LOGPROBS, INCLUDED_THOUGHTS):
            raise UnsupportedParameter(f"Including '{value[:100]}' is not supported here yet.", param="include")
    return include


def _object_of(row: ConversationRow) -> dict[str, object]:
    return conversation_object(row.id, int(row.created_at.timestamp()), row.metadata_)
