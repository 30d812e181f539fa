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
# Labelled by key, so that a row's mapping has the names of the fields.
_ROW = [column.label(column.key) for column in _conversation.c]


class ConversationRow(msgspec.Struct, frozen=True, kw_only=True):
    """A stored conversation; fields as in `storage.conversations.tables`."""

    id: str
    owner: str
    created_at: datetime
    metadata_: dict[str, str]
    next_position: int
    num_items: int
    num_bytes: int


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


def delete_whole(c: Connection, conversation_id: str, owner: str) -> None:
    """Delete a conversation with its items; ConversationNotFound as `get`. A turn that runs then appends nothing."""
    row = lock(c, conversation_id, owner)
    c.execute(delete(_conversation).where(_conversation.c.id == row.id))
    c.execute(delete(_item).where(_item.c.conversation_id == row.id))
    idempotency.forget(c, [row.id])


def reserve(c: Connection, conversation: ConversationRow, num_positions: int) -> None:
    """Take the next positions of a locked conversation."""
    raised = {"next_position": conversation.next_position + num_positions}
    c.execute(update(_conversation).where(_conversation.c.id == conversation.id).values(raised))


def _get(c: Connection, conversation_id: str, owner: str, *, is_locked: bool, param: str | None) -> ConversationRow:
    query = select(*_ROW).where(_conversation.c.id == conversation_id, _conversation.c.owner == owner)
    # SQLite has no such clause and needs none: it has one writer at a time.
    query = query.with_for_update() if is_locked else query
    row = c.execute(query).first() if is_public_id(conversation_id) else None
    if row is None:
        raise ConversationNotFound(f"No conversation with id '{conversation_id[:100]}'.", param=param)
    return ConversationRow(**row._mapping)
