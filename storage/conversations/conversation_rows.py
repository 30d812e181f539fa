"""The rows of conversations: creating, reading, changing and deleting them, and the lock of each."""

from collections.abc import Mapping
from datetime import datetime

import msgspec
from sqlalchemy import Connection, delete, insert, select, update

from storage.accounts import idempotency
from storage.conversations.tables import Conversation, ConversationItem
from storage.database.table_definitions import table_of
from storage.errors import ConversationNotFound
from storage.ids import is_public_id

_conversation = table_of(Conversation)
_item = table_of(ConversationItem)
# SQLite follows every page of an item to free it, and until then nobody else writes.
_BYTES_ERASED_AT_ONCE = 1_000_000
_ITEMS_ERASED_AT_ONCE = 500


class ConversationRow(msgspec.Struct, frozen=True, kw_only=True):
    """A stored conversation; fields as in `storage.conversations.tables`."""

    id: str
    owner: str
    created_at: datetime
    metadata_: dict[str, str]
    next_position: int
    num_items: int
    num_bytes: int


# Labelled by key, so that a row's mapping has the names of the fields.
_ROW = [_conversation.c[name].label(name) for name in ConversationRow.__struct_fields__]


def create(
    c: Connection, conversation_id: str, owner: str, metadata: Mapping[str, str], now: datetime
) -> ConversationRow:
    """A new conversation without items."""
    row = ConversationRow(
        id=conversation_id,
        owner=owner,
        created_at=now,
        metadata_=dict(metadata),
        next_position=0,
        num_items=0,
        num_bytes=0,
    )
    c.execute(insert(_conversation), [msgspec.structs.asdict(row)])
    return row


def get(c: Connection, conversation_id: str, owner: str, *, param: str | None = None) -> ConversationRow:
    """The owner's conversation; ConversationNotFound, with that `param`, when absent or another owner's."""
    return _get(c, conversation_id, owner, is_locked=False, param=param)


def lock(c: Connection, conversation_id: str, owner: str, *, param: str | None = None) -> ConversationRow:
    """As `get`, in a write transaction: nobody else changes the conversation until its end."""
    return _get(c, conversation_id, owner, is_locked=True, param=param)


def update_metadata(c: Connection, conversation_id: str, owner: str, metadata: Mapping[str, str]) -> ConversationRow:
    """The conversation with this metadata instead of what it had; ConversationNotFound as `get`."""
    row = lock(c, conversation_id, owner)
    c.execute(update(_conversation).where(_conversation.c.id == row.id).values(metadata_=dict(metadata)))
    return msgspec.structs.replace(row, metadata_=dict(metadata))


def delete_whole(c: Connection, conversation_id: str, owner: str, now: datetime) -> None:
    """Delete a conversation with its items; ConversationNotFound as `get`. A turn that runs then appends nothing.

    Nobody sees it any more; maintenance erases its items, which may be many (`erase_some`).
    """
    row = lock(c, conversation_id, owner)
    c.execute(update(_conversation).where(_conversation.c.id == row.id).values(deleted_at=now))
    idempotency.forget(c, [row.id])


def is_there(c: Connection, conversation_id: str) -> bool:
    """Whether there is such a conversation, whoever owns it, that was not deleted."""
    is_it = (_conversation.c.id == conversation_id) & _conversation.c.deleted_at.is_(None)
    return c.execute(select(_conversation.c.id).where(is_it)).first() is not None


def find_deleted(c: Connection) -> str | None:
    """The id of a conversation that is to be erased."""
    query = select(_conversation.c.id).where(_conversation.c.deleted_at.is_not(None))
    return c.execute(query.order_by(_conversation.c.deleted_at).limit(1)).scalar()


def erase_some(c: Connection, conversation_id: str) -> None:
    """Erase the first items of a deleted conversation, and its row when there are no more."""
    query = select(_item.c.position, _item.c.num_bytes).where(_item.c.conversation_id == conversation_id)
    first = c.execute(query.order_by(_item.c.position).limit(_ITEMS_ERASED_AT_ONCE)).all()
    if not first:
        is_it = (_conversation.c.id == conversation_id) & _conversation.c.deleted_at.is_not(None)
        c.execute(delete(_conversation).where(is_it))
        return
    num_bytes, last = 0, first[0].position
    for row in first:
        num_bytes += row.num_bytes
        if num_bytes > _BYTES_ERASED_AT_ONCE:
            break
        last = row.position
    c.execute(delete(_item).where(_item.c.conversation_id == conversation_id, _item.c.position <= last))


def reserve(c: Connection, conversation: ConversationRow, num_positions: int) -> None:
    """Take the next positions of a locked conversation."""
    raised = {"next_position": conversation.next_position + num_positions}
    c.execute(update(_conversation).where(_conversation.c.id == conversation.id).values(raised))


def _get(c: Connection, conversation_id: str, owner: str, *, is_locked: bool, param: str | None) -> ConversationRow:
    is_seen = (_conversation.c.owner == owner) & _conversation.c.deleted_at.is_(None)
    query = select(*_ROW).where(_conversation.c.id == conversation_id, is_seen)
    # SQLite has no such clause and needs none: it has one writer at a time.
    query = query.with_for_update() if is_locked else query
    row = c.execute(query).first() if is_public_id(conversation_id) else None
    if row is None:
        raise ConversationNotFound(f"No conversation with id '{conversation_id[:100]}'.", param=param)
    return ConversationRow(**row._mapping)
