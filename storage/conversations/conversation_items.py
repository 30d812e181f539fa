"""The items of conversations: adding, paging, reading and deleting them.

Positions come from one counter in the conversation's row, which is read and raised under the lock of that row.
"""

from collections.abc import Iterable, Sequence
from typing import cast

import msgspec
from sqlalchemy import Connection, delete, insert, select, update

from storage.conversations.conversation_rows import ConversationRow
from storage.conversations.tables import Conversation, ConversationItem
from storage.database.table_definitions import table_of
from storage.errors import ConversationItemNotFound, ConversationTooLarge, InvalidRequest
from storage.ids import is_public_id

MAX_ITEMS = 20_000
# A page ends before it holds more, unless it has one item.
MAX_PAGE_BYTES = 8_000_000

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


def add(c: Connection, conversation: ConversationRow, items: Sequence[NewItem], *, max_bytes: int) -> ConversationRow:
    """The conversation with these items at its end.

    conversation: its row, locked
    max_bytes:    raises ConversationTooLarge where it would hold more, or more than MAX_ITEMS items

    Raises InvalidRequest for an id that the conversation has already.
    """
    check_room(conversation, items, max_bytes=max_bytes)
    refuse_taken_ids(c, conversation.id, [item.item_id for item in items], field="items")
    put(c, conversation.id, conversation.next_position, items)
    raised = {
        "next_position": conversation.next_position + len(items),
        "num_items": conversation.num_items + len(items),
        "num_bytes": conversation.num_bytes + sum(item.num_bytes for item in items),
    }
    c.execute(update(_conversation).where(_conversation.c.id == conversation.id).values(raised))
    return msgspec.structs.replace(conversation, **raised)


def check_room(conversation: ConversationRow, items: Sequence[NewItem], *, max_bytes: int) -> None:
    """Raise ConversationTooLarge where the conversation would hold too much with these items."""
    if conversation.num_items + len(items) > MAX_ITEMS:
        raise ConversationTooLarge(f"A conversation holds at most {MAX_ITEMS} items. Please begin a new one.")
    if conversation.num_bytes + sum(item.num_bytes for item in items) > max_bytes:
        raise ConversationTooLarge(f"A conversation holds at most {max_bytes} bytes of items. Please begin a new one.")


def refuse_taken_ids(c: Connection, conversation_id: str, item_ids: Sequence[str], *, field: str) -> None:
    """Raise InvalidRequest for an id that comes twice, that an item of the conversation has, or that is no public id.

    field: of the request, in which the items are
    """
    seen: set[str] = set()
    public = [item_id for item_id in item_ids if is_public_id(item_id)]
    query = select(_item.c.item_id).where(_item.c.conversation_id == conversation_id, _item.c.item_id.in_(public))
    taken = set(c.execute(query).scalars()) if public else set()
    for index, item_id in enumerate(item_ids):
        param = f"{field}[{index}].id"
        if not is_public_id(item_id):
            raise InvalidRequest(
                f"Invalid '{param}': expected 1 to 128 ASCII letters, digits, hyphens and underscores.", param=param
            )
        if item_id in seen or item_id in taken:
            raise InvalidRequest(
                f"Invalid '{param}': the conversation has an item with the id '{item_id}' already.", param=param
            )
        seen.add(item_id)


def put(c: Connection, conversation_id: str, first_position: int, items: Sequence[NewItem]) -> None:
    """Insert these items from a position on; the caller has counted them in the conversation's row."""
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


def list_page(c: Connection, conversation_id: str, *, after: str | None, limit: int, is_newest_first: bool) -> ItemPage:
    """A page of a conversation's items, with at most MAX_PAGE_BYTES.

    after: the id of the item before the page, in the order asked for; InvalidRequest where the conversation has none
    """
    query = select(_item.c.position, _item.c.num_bytes).where(_item.c.conversation_id == conversation_id)
    if after is not None:
        position = _position_of(c, conversation_id, after)
        if position is None:
            raise InvalidRequest(f"No item of this list has the id '{after[:100]}'.", param="after")
        query = query.where(_item.c.position < position if is_newest_first else _item.c.position > position)
    order = _item.c.position.desc() if is_newest_first else _item.c.position
    found = c.execute(query.order_by(order).limit(limit + 1)).all()
    num_items, num_bytes = 0, 0
    for row in found[:limit]:
        num_bytes += row.num_bytes
        if num_items and num_bytes > MAX_PAGE_BYTES:
            break
        num_items += 1
    positions = [row.position for row in found[:num_items]]
    payloads = select(_item.c.payload).where(
        _item.c.conversation_id == conversation_id, _item.c.position.in_(positions)
    )
    items = list(c.execute(payloads.order_by(order)).scalars()) if positions else []
    return ItemPage(items=items, has_more=num_items < len(found))


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
    lowered = {"num_items": conversation.num_items - 1, "num_bytes": conversation.num_bytes - num_bytes}
    c.execute(update(_conversation).where(_conversation.c.id == conversation.id).values(lowered))


def _position_of(c: Connection, conversation_id: str, item_id: str) -> int | None:
    query = select(_item.c.position).where(_item.c.conversation_id == conversation_id, _item.c.item_id == item_id)
    return c.execute(query).scalar() if is_public_id(item_id) else None


def _item_not_found(item_id: str) -> ConversationItemNotFound:
    return ConversationItemNotFound(f"This conversation has no item with id '{item_id[:100]}'.", param="item_id")
