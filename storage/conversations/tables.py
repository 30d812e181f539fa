"""Tables of conversations: a small row with the counter, and one row for each item."""

from datetime import datetime

from sqlalchemy import BigInteger, Column, Index
from sqlalchemy.types import JSON
from sqlmodel import Field, SQLModel

from storage.database.columns import UtcDateTime
from storage.database.table_definitions import partial_index


class Conversation(SQLModel, table=True):
    """A conversation of one owner.

    next_position: of the next item or turn; taken and raised under the lock of this row
    num_items, num_bytes: of its stored items
    deleted_at: since when nobody sees it; maintenance erases its items, then its row
    """

    __tablename__ = "conversation"

    id: str = Field(primary_key=True)
    owner: str
    created_at: datetime = Field(sa_column=Column(UtcDateTime, nullable=False))
    metadata_: dict[str, str] = Field(sa_column=Column("metadata", JSON, key="metadata_", nullable=False))
    next_position: int = Field(sa_column=Column(BigInteger, nullable=False))
    num_items: int
    num_bytes: int = Field(sa_column=Column(BigInteger, nullable=False))
    deleted_at: datetime | None = Field(default=None, sa_column=Column(UtcDateTime))

    __table_args__ = (partial_index("ix_conversation_deleted_at", "deleted_at IS NOT NULL", "deleted_at"),)


class ConversationItem(SQLModel, table=True):
    """An item of a conversation. It outlives the job that made it.

    position:  its place in the order of the conversation; positions have gaps
    item_id:   as callers know it, unique in the conversation
    num_bytes: of `payload`, as JSON text
    is_system: whether it is a system or developer message, which truncation keeps
    """

    __tablename__ = "conversation_item"

    conversation_id: str = Field(primary_key=True)
    position: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    item_id: str
    num_bytes: int
    is_system: bool
    payload: dict[str, object] = Field(sa_column=Column(JSON, nullable=False))

    __table_args__ = (Index("ix_conversation_item_id", "conversation_id", "item_id", unique=True),)
