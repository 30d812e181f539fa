"""The items of conversations: adding, paging, reading and deleting them.

Positions come from one counter in the conversation's row, which is read and raised under the lock of that row.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, cast

import msgspec
from sqlalchemy import Connection, Row, delete, insert, select, update
from sqlalchemy.sql.elements import ColumnElement

from storage.accounts import idempotency
from storage.conversations.conversation_rows import ConversationRow
from storage.conversations.tables import Conversation, ConversationItem
from storage.database.table_definitions import table_of
from storage.errors import ConversationItemNotFound, ConversationTooLarge, InvalidRequest
from storage.ids import is_public_id

MAX_ITEMS = 20_000
# Taken by a turn when it is accepted: more than its items can be, of which each takes bytes or tokens.
POSITIONS_OF_TURN = 1 << 20
# A page ends before it holds more, unless it has one item.
MAX_PAGE_BYTES = 8_000_000
# A history is read in pages of so many items or bytes, since maybe only the newest items are needed.
_HISTORY_PAGE = 256
_HISTORY_PAGE_BYTES = 256_000

_conversation = table_of(Conversation)
_item = table_of(ConversationItem)

Payload = dict[str, object]


class NewItem(msgspec.Struct, frozen=True, kw_only=True):
    """An item to append; its payload holds its id."""

    payload: Payload
    num_bytes: int

    @property
    def item_id(self) -> str:
        """The id of the item."""
        return cast(str, self.payload["id"])


class ItemPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of items, in the order that was asked for."""

    items: list[Payload]
    has_more: bool


def new_items(payloads: Iterable[Payload]) -> list[NewItem]:
    """The items of these payloads, measured."""
    return [NewItem(payload=payload, num_bytes=len(msgspec.json.encode(payload))) for payload in payloads]


def add(
    c: Connection,
    conversation: ConversationRow,
    items: Sequence[NewItem],
    *,
    max_bytes: int,
    is_reserved: Callable[[str], bool] = lambda _item_id: False,
) -> ConversationRow:
    """The conversation with these items at its end.

    conversation: its row, locked
    max_bytes:    raises ConversationTooLarge where it would hold more, or more than MAX_ITEMS items
    is_reserved:  whether the open turn of the conversation will have an item of this id

    Raises InvalidRequest for an id that the conversation has already.
    """
    check_number(conversation, len(items))
    num_bytes = conversation.num_bytes + sum(item.num_bytes for item in items)
    if num_bytes > max_bytes:
        raise ConversationTooLarge(f"A conversation holds at most {max_bytes} bytes of items. Please begin a new one.")
    item_ids = [item.item_id for item in items]
    refuse_taken_ids(c, conversation.id, item_ids, field="items", is_reserved=is_reserved)
    _put(c, conversation.id, conversation.next_position, items)
    raised = {
        "next_position": conversation.next_position + len(items),
        "num_items": conversation.num_items + len(items),
        "num_bytes": num_bytes,
    }
    c.execute(update(_conversation).where(_conversation.c.id == conversation.id).values(raised))
    return msgspec.structs.replace(conversation, **raised)


def add_turn(c: Connection, conversation_id: str, position: int, items: Sequence[NewItem]) -> None:
    """Add the items of a turn at the positions that it has taken; nothing where the conversation was deleted.

    What a turn may add was bounded when it was accepted.
    """
    assert len(items) <= POSITIONS_OF_TURN
    raised = {
        "num_items": _conversation.c.num_items + len(items),
        "num_bytes": _conversation.c.num_bytes + sum(item.num_bytes for item in items),
    }
    is_it = (_conversation.c.id == conversation_id) & _conversation.c.deleted_at.is_(None)
    counting = update(_conversation).where(is_it).values(raised)
    if c.execute(counting).rowcount:
        _put(c, conversation_id, position, items)


def check_number(conversation: ConversationRow, num_items: int) -> None:
    """Raise ConversationTooLarge where the conversation would hold too many items with so many more."""
    if conversation.num_items + num_items > MAX_ITEMS:
        raise ConversationTooLarge(f"A conversation holds at most {MAX_ITEMS} items. Please begin a new one.")


def refuse_taken_ids(
    c: Connection,
    conversation_id: str,
    item_ids: Sequence[str | None],
    *,
    field: str,
    is_reserved: Callable[[str], bool] = lambda _item_id: False,
) -> None:
    """Raise InvalidRequest for an id that comes twice, that an item of the conversation has, or that is no public id.

    item_ids:    None for an item that came without one
    field:       of the request, in which the items are
    is_reserved: as in `add`
    """
    seen: set[str] = set()
    public = [item_id for item_id in item_ids if item_id is not None and is_public_id(item_id)]
    query = select(_item.c.item_id).where(_item.c.conversation_id == conversation_id, _item.c.item_id.in_(public))
    taken = set(c.execute(query).scalars()) if public else set()
    for index, item_id in enumerate(item_ids):
        param = f"{field}[{index}].id"
        if item_id is None:
            continue
        if not is_public_id(item_id):
            raise InvalidRequest(
                f"Invalid '{param}': expected 1 to 128 ASCII letters, digits, hyphens and underscores.", param=param
            )
        if item_id in seen or item_id in taken or is_reserved(item_id):
            raise InvalidRequest(
                f"Invalid '{param}': the conversation has an item with the id '{item_id}' already.", param=param
            )
        seen.add(item_id)


def list_page(
    c: Connection,
    conversation_id: str,
    *,
    after: str | None,
    limit: int,
    is_newest_first: bool,
    before: int | None = None,
) -> ItemPage:
    """A page of a conversation's items, with at most MAX_PAGE_BYTES.

    after:  the id of the item before the page, in the order asked for; InvalidRequest where the conversation has none
    before: only items before this position are listed; None is no bound
    """
    bounds = [_item.c.conversation_id == conversation_id]
    if before is not None:
        bounds.append(_item.c.position < before)
    if after is not None:
        position = _position_of(c, conversation_id, after)
        if position is None:
            raise InvalidRequest(f"No item of this list has the id '{after[:100]}'.", param="after")
        bounds.append(_item.c.position < position if is_newest_first else _item.c.position > position)
    rows, has_more = _page(c, bounds, limit=limit, max_bytes=MAX_PAGE_BYTES, is_newest_first=is_newest_first)
    return ItemPage(items=[row.payload for row in rows], has_more=has_more)


def key_of(conversation_id: str, item_id: str) -> str:
    """The name by which an idempotency key knows an item, the first of those that were added with it."""
    return f"{conversation_id}/{item_id}"


def list_added(c: Connection, key: str, num_items: int) -> list[Payload]:
    """The items that were added together, as far as they have not been deleted.

    key: as `key_of` of the first of them
    """
    conversation_id, _, item_id = key.partition("/")
    position = _position_of(c, conversation_id, item_id)
    if position is None:
        raise _item_not_found(item_id)
    bounds = [_item.c.conversation_id == conversation_id, _item.c.position.between(position, position + num_items - 1)]
    return list(c.execute(select(_item.c.payload).where(*bounds).order_by(_item.c.position)).scalars())


def newest_first(c: Connection, conversation_id: str, *, before: int) -> Iterator[Payload]:
    """The items of a conversation before a position, the newest first, in pages; what is not consumed is not read."""
    has_more = True
    while has_more:
        bounds = [_item.c.conversation_id == conversation_id, _item.c.position < before]
        rows, has_more = _page(c, bounds, limit=_HISTORY_PAGE, max_bytes=_HISTORY_PAGE_BYTES, is_newest_first=True)
        yield from (row.payload for row in rows)
        before = rows[-1].position if rows else before


def list_system(c: Connection, conversation_id: str, *, before: int) -> list[Payload]:
    """The system and developer messages of a conversation before a position, the oldest first."""
    query = select(_item.c.payload).where(
        _item.c.conversation_id == conversation_id, _item.c.position < before, _item.c.is_system
    )
    return list(c.execute(query.order_by(_item.c.position)).scalars())


def get_item(c: Connection, conversation_id: str, item_id: str) -> Payload:
    """An item of a conversation; ConversationItemNotFound when it has none of this id."""
    query = select(_item.c.payload).where(_item.c.conversation_id == conversation_id, _item.c.item_id == item_id)
    payload = c.execute(query).scalar() if is_public_id(item_id) else None
    if payload is None:
        raise _item_not_found(item_id)
    return cast(Payload, payload)


def delete_item(c: Connection, conversation: ConversationRow, item_id: str) -> None:
    """Delete an item of a conversation; ConversationItemNotFound as `get_item`.

    conversation: its row, locked
    """
    deleting = delete(_item).where(_item.c.conversation_id == conversation.id, _item.c.item_id == item_id)
    num_bytes = c.execute(deleting.returning(_item.c.num_bytes)).scalar() if is_public_id(item_id) else None
    if num_bytes is None:
        raise _item_not_found(item_id)
    idempotency.forget(c, [key_of(conversation.id, item_id)])
    lowered = {"num_items": conversation.num_items - 1, "num_bytes": conversation.num_bytes - num_bytes}
    c.execute(update(_conversation).where(_conversation.c.id == conversation.id).values(lowered))


def _put(c: Connection, conversation_id: str, first_position: int, items: Sequence[NewItem]) -> None:
    rows = [
        {
            "conversation_id": conversation_id,
            "position": first_position + index,
            "item_id": item.item_id,
            "num_bytes": item.num_bytes,
            "is_system": item.payload.get("role") in ("system", "developer"),
            "payload": item.payload,
        }
        for index, item in enumerate(items)
    ]
    if rows:
        c.execute(insert(_item), rows)


def _page(
    c: Connection, bounds: Sequence[ColumnElement[bool]], *, limit: int, max_bytes: int, is_newest_first: bool
) -> tuple[Sequence[Row[*tuple[Any, ...]]], bool]:
    """Position and payload of at most `limit` items with at most `max_bytes`, or of one; whether there are more."""
    order = _item.c.position.desc() if is_newest_first else _item.c.position
    # Positions and sizes first: payloads that the page has no room for are not read.
    found = c.execute(select(_item.c.position, _item.c.num_bytes).where(*bounds).order_by(order).limit(limit + 1)).all()
    num_items, num_bytes = 0, 0
    for row in found[:limit]:
        num_bytes += row.num_bytes
        if num_items and num_bytes > max_bytes:
            break
        num_items += 1
    if not num_items:
        return (), False
    first, last = sorted((found[0].position, found[num_items - 1].position))
    payloads = select(_item.c.position, _item.c.payload).where(*bounds, _item.c.position.between(first, last))
    return c.execute(payloads.order_by(order)).all(), num_items < len(found)


def _position_of(c: Connection, conversation_id: str, item_id: str) -> int | None:
    query = select(_item.c.position).where(_item.c.conversation_id == conversation_id, _item.c.item_id == item_id)
    return c.execute(query).scalar() if is_public_id(item_id) else None


def _item_not_found(item_id: str) -> ConversationItemNotFound:
    return ConversationItemNotFound(f"This conversation has no item with id '{item_id[:100]}'.")
