"""Job views: stored jobs, read for their owners and decoded. Run these functions in a reader's thread."""

import msgspec
from msgspec import structs
from sqlalchemy import Connection

from api.protocol.answer.outcome import entries_of
from api.protocol.kinds import object_of
from api.protocol.prompt.token_budget import CHARACTERS_PER_TOKEN
from api.protocol.responses.item_history import Item
from api.protocol.responses.stored_items import (
    PreviousResponse,
    StoredTurn,
    input_items_of,
    newest_turns,
    previous_of,
)
from storage.contract import End, JobHeader, JobKind, JobStatus, LogEntry, Result
from storage.errors import ContextTooLarge, JobNotFound, PreviousResponseNotFound
from storage.jobs import jobs, records, waiting
from storage.jobs.records import ChainLink, JobRecord
from storage.jobs.waiting import QueuePosition


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
    job = jobs.get(connection, job_id, owner)
    if job.kind != kind:
        raise JobNotFound(f"No {kind.value} with id '{job_id}'.")
    return view_with_position(connection, job)


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


def input_items(connection: Connection, job_id: str, owner: str) -> list[Item]:
    """The input items of the owner's response, those of earlier turns first; JobNotFound as `view`."""
    view(connection, job_id, owner, JobKind.RESPONSE)
    return input_items_of(_turns(connection, job_id))


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


def _turns(connection: Connection, job_id: str) -> list[StoredTurn]:
    return list(map(_turn_of, records.iterate_chain(connection, job_id)))[::-1]


def _turn_of(link: ChainLink) -> StoredTurn:
    return StoredTurn(job_id=link.job_id, context=link.context)
