"""Job views: stored jobs, read for their owners and decoded. Run these functions in a reader's thread."""

from collections.abc import Callable, Sequence

import msgspec
from msgspec import structs
from sqlalchemy import Connection

from api.protocol.answer.outcome import entries_of
from api.protocol.conversations.turn_items import own_items
from api.protocol.kinds import object_of
from api.protocol.prompt.token_budget import CHARACTERS_PER_TOKEN
from api.protocol.responses.conversation_history import ConversationHistory, newest_history, whole_history
from api.protocol.responses.item_history import Item
from api.protocol.responses.stored_items import (
    PreviousResponse,
    StoredTurn,
    input_items_of,
    newest_turns,
    previous_of,
)
from storage.contract import End, JobHeader, JobKind, JobStatus, LogEntry, Result
from storage.conversations import conversation_items, conversation_rows
from storage.errors import ContextTooLarge, ConversationLocked, JobNotFound, PreviousResponseNotFound
from storage.ids import suffix_of
from storage.jobs import jobs, records, waiting
from storage.jobs.records import ChainLink, JobRecord
from storage.jobs.waiting import QueuePosition
from storage.turns import turns


class JobView(msgspec.Struct, frozen=True, kw_only=True):
    """A job as its owner may see it.

    end:       how it ended, None while it runs
    result:    None while it runs, and of a cancelled or failed job until its partial result is stored
    has_begun: whether a worker ever claimed it
    position:  its position in the queue; None unless it is queued
    """

    header: JobHeader
    metadata: dict[str, str]
    end: End | None
    result: Result | None
    has_begun: bool
    position: QueuePosition | None = None

    @property
    def is_settled(self) -> bool:
        """Whether the job can be read from the database alone, without its log."""
        return self.end is not None and self.result is not None

    def entries(self) -> list[LogEntry]:
        """The log of a settled job, from its stored result."""
        return list(entries_of(self.result or Result(), self.end))

    def object(self, entries: list[LogEntry] | Result) -> dict[str, object]:
        """The protocol object of the job, from its entries so far."""
        return object_of(self.header, entries, self.end, metadata=self.metadata)


def view(connection: Connection, job_id: str, owner: str, kind: JobKind) -> JobView:
    """The owner's job of this kind; JobNotFound for any other id."""
    return view_with_position(connection, _of_kind(connection, job_id, owner, kind))


def view_with_position(connection: Connection, job: JobRecord) -> JobView:
    """The view of a stored job, with its position while it is queued."""
    seen = view_of(job)
    if job.status is not JobStatus.QUEUED:
        return seen
    return structs.replace(
        seen, position=waiting.position_of(connection, job.served_model, job.priority_queue, job.sent_at)
    )


def view_of(job: JobRecord) -> JobView:
    """The view of a stored job, whatever its status."""
    return JobView(
        header=records.header_of(job),
        metadata=job.metadata_,
        end=records.end_of(job),
        result=None if job.result is None else records.result_of(job),
        has_begun=job.attempt > 0,
    )


def objects_of(found: Sequence[JobRecord]) -> list[dict[str, object]]:
    """The protocol objects of stored jobs, from their rows alone: what runs has no output yet."""
    return [view.object(view.result or Result()) for view in map(view_of, found)]


def input_items(connection: Connection, job_id: str, owner: str) -> list[Item]:
    """The input items of the owner's response, those of earlier turns first; JobNotFound as `view`.

    Of a conversation those that stood before the turn, as far as they have not been deleted.
    """
    job = _of_kind(connection, job_id, owner, JobKind.RESPONSE)
    items = input_items_of(_turns(connection, job_id))
    if job.conversation_id is None or job.conversation_position is None:
        return items
    if not conversation_rows.is_there(connection, job.conversation_id):
        return items
    before = conversation_items.newest_first(connection, job.conversation_id, before=job.conversation_position)
    return [*whole_history(before), *items]


def conversation_so_far(
    connection: Connection,
    conversation_id: str,
    owner: str,
    *,
    max_bytes: int,
    context_length: int | None = None,
    is_turn: bool = True,
) -> ConversationHistory:
    """The conversation that a new request goes on with; raises ConversationNotFound.

    max_bytes:      raises ContextTooLarge where it holds more
    context_length: it is read backwards, only as far as it may fit so many tokens; None reads all of it
    is_turn:        whether the request makes a turn; raises ConversationLocked while another one is open
    """
    row = conversation_rows.get(connection, conversation_id, owner, param="conversation")
    if is_turn and turns.find_open(connection, row.id) is not None:
        raise ConversationLocked
    if row.num_bytes > max_bytes:
        raise ContextTooLarge(
            "The conversation is too large together with the new input. Please begin a new one.", param="conversation"
        )
    newest_first = conversation_items.newest_first(connection, row.id, before=row.next_position)
    if context_length is None:
        items = whole_history(newest_first)
    else:
        system_items = conversation_items.list_system(connection, row.id, before=row.next_position)
        items = newest_history(newest_first, system_items, max_characters=CHARACTERS_PER_TOKEN * context_length)
    return ConversationHistory(conversation_id=row.id, position=row.next_position, items=items)


def is_of_open_turn(connection: Connection, conversation_id: str) -> Callable[[str], bool]:
    """A function that says whether the open turn of a conversation will have an item of an id."""
    turn = turns.find_open(connection, conversation_id)
    job = None if turn is None else jobs.find(connection, turn.job_id)
    if job is None:
        return lambda _item_id: False
    given = {item["id"] for item in own_items(job.id, job.context or {})}
    suffix = suffix_of(job.id)
    return lambda item_id: suffix in item_id or item_id in given


def previous_turn(
    connection: Connection, job_id: str, owner: str, *, max_bytes: int, context_length: int | None = None
) -> PreviousResponse:
    """The ended response that a new request continues; raises PreviousResponseNotFound.

    max_bytes:      raises ContextTooLarge where its chain holds more
    context_length: its chain is read backwards, only as far as it may fit so many tokens; None reads all of it
    """
    try:
        job = jobs.get(connection, job_id, owner)
    except JobNotFound as error:
        raise previous_not_found(job_id) from error
    # A response with `store: false` is kept for some minutes, so that its caller can read it; it cannot be continued.
    if job.kind != JobKind.RESPONSE or not job.store:
        raise previous_not_found(job_id)
    if job.conversation_id is not None:
        raise PreviousResponseNotFound(
            f"The response with id '{job_id}' is a turn of a conversation. Please name its 'conversation' instead.",
            param="previous_response_id",
        )
    found = view_of(job)
    if found.end is None:
        raise PreviousResponseNotFound(
            f"Previous response with id '{job_id}' has not ended yet.", param="previous_response_id"
        )
    chain_bytes = records.chain_bytes_of(connection, job_id)
    if chain_bytes > max_bytes:
        raise ContextTooLarge(
            "The conversation that 'previous_response_id' continues is too large together with the new input. "
            "Please begin a new one.",
            param="previous_response_id",
        )
    response = found.object(found.result or Result())
    if context_length is None:
        return previous_of(_turns(connection, job_id), found.header, response, chain_bytes)
    newest_first = map(_turn_of, records.iterate_chain(connection, job_id))
    turns, is_whole = newest_turns(newest_first, max_characters=CHARACTERS_PER_TOKEN * context_length)
    return previous_of(turns, found.header, response, chain_bytes, is_whole=is_whole)


def previous_not_found(job_id: str) -> PreviousResponseNotFound:
    """The error for an id that no usable response has."""
    return PreviousResponseNotFound(f"Previous response with id '{job_id}' not found.", param="previous_response_id")


def _of_kind(connection: Connection, job_id: str, owner: str, kind: JobKind) -> JobRecord:
    job = jobs.get(connection, job_id, owner)
    if job.kind != kind:
        raise JobNotFound(f"No {kind.value} with id '{job_id}'.")
    return job


def _turns(connection: Connection, job_id: str) -> list[StoredTurn]:
    return list(map(_turn_of, records.iterate_chain(connection, job_id)))[::-1]


def _turn_of(link: ChainLink) -> StoredTurn:
    return StoredTurn(job_id=link.job_id, context=link.context)
