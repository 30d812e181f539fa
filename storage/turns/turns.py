"""Turns: the jobs of conversations. A conversation has at most one open turn; the index `ix_job_open_turn` holds that.

A turn takes a range of positions when it is accepted. What is added while it is open gets positions behind that range,
and its end puts its items into it (see `storage.jobs.ending`).
"""

from collections.abc import Sequence
from datetime import datetime
from enum import Enum, auto

import msgspec
from sqlalchemy import Connection, bindparam, insert, select

from storage.accounts.idempotency import KeyedRequest
from storage.conversations import conversation_items, conversation_rows
from storage.database.group_commit import Insert
from storage.database.table_definitions import table_of
from storage.jobs import attaching
from storage.jobs.attaching import Attached
from storage.jobs.records import NewJob
from storage.jobs.tables import Job

_job = table_of(Job)
_OPEN = select(_job.c.id, _job.c.conversation_position).where(
    _job.c.conversation_id == bindparam("of_conversation"), _job.c.ended_at.is_(None)
)


class OpenTurn(msgspec.Struct, frozen=True, kw_only=True):
    """The turn of a conversation that has not ended; its items will have positions from `position` on."""

    job_id: str
    position: int


class NotStarted(Enum):
    """Why a turn was not accepted."""

    LOCKED = auto()  # another turn is open
    CHANGED = auto()  # items came since the conversation was read


def find_open(c: Connection, conversation_id: str) -> OpenTurn | None:
    """The open turn of a conversation; None where there is none."""
    row = c.execute(_OPEN, {"of_conversation": conversation_id}).first()
    return None if row is None else OpenTurn(job_id=row.id, position=row.conversation_position)


def start(
    c: Connection,
    new: NewJob,
    rows: Sequence[Insert],
    keyed: KeyedRequest | None,
    *,
    item_ids: Sequence[str | None],
    key_expires_at: datetime,
) -> Attached | NotStarted | None:
    """None when the job is inserted as the open turn of its conversation, or the job of the same keyed request.

    new:      its `conversation_position` is the `next_position` that its prompt was made for
    rows:     as `jobs.rows_of` returns them
    item_ids: ids that its input items came with; None for those without

    Raises ConversationNotFound, ConversationTooLarge, and InvalidRequest for ids that the conversation has.
    """
    assert new.conversation_id is not None
    assert new.conversation_position is not None
    conversation = conversation_rows.lock(c, new.conversation_id, new.owner, param="conversation")
    if keyed is not None:
        attached = attaching.attach_keyed(c, keyed, new.created_at)
        if attached is not None:
            return attached
    if find_open(c, conversation.id) is not None:
        return NotStarted.LOCKED
    if conversation.next_position != new.conversation_position:
        return NotStarted.CHANGED
    conversation_items.check_number(conversation, len(item_ids))
    conversation_items.refuse_taken_ids(c, conversation.id, item_ids, field="input")
    conversation_rows.reserve(c, conversation, conversation_items.POSITIONS_OF_TURN)
    if keyed is not None:
        return attaching.insert_keyed(c, rows, keyed, now=new.created_at, expires_at=key_expires_at)
    for table, values in rows:
        c.execute(insert(table_of(table)), [values])
    return None
