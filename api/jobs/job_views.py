"""A job's row, read for its owner and decoded; run these in a reader's thread."""

import msgspec
from msgspec import structs
from sqlalchemy import Connection

from api.protocol.answer.outcome import entries_of
from api.protocol.kinds import object_of
from api.protocol.responses.stored_items import PreviousResponse, previous_of
from storage.contract import End, JobHeader, JobKind, JobStatus, LogEntry, Result
from storage.errors import JobNotFound, PreviousResponseNotFound
from storage.jobs import jobs, records, waiting
from storage.jobs.records import JobRecord
from storage.jobs.waiting import QueuePosition


class JobView(msgspec.Struct, frozen=True, kw_only=True):
    """A job as its owner may see it.

    end:       how it ended, None while it runs
    result:    what came of it; None while it runs, and of a cancelled or failed job until somebody has stored it
    has_begun: whether a worker ever took it
    place:     where it stands in line; None unless it is queued
    """

    header: JobHeader
    metadata: dict[str, str]
    end: End | None
    result: Result | None
    has_begun: bool
    position: QueuePosition | None = None

    @property
    def is_settled(self) -> bool:
        """Whether the row alone tells the whole job."""
        return self.end is not None and self.result is not None

    def entries(self) -> list[LogEntry]:
        """The log that a settled job's row stands for."""
        return list(entries_of(self.result or Result(), self.end))

    def object(self, entries: list[LogEntry] | Result) -> dict[str, object]:
        """The job as its protocol shows it, with what came of it so far."""
        return object_of(self.header, entries, self.end, metadata=self.metadata)


def view(connection: Connection, job_id: str, owner: str, kind: JobKind) -> JobView:
    """The owner's job of this kind; JobNotFound for any other id."""
    job = jobs.get(connection, job_id, owner)
    if job.kind != kind:
        raise JobNotFound(f"No {kind.value} with id '{job_id}'.")
    return view_with_position(connection, job)


def view_with_position(connection: Connection, job: JobRecord) -> JobView:
    """The row, decoded, with the place of one that is queued."""
    seen = view_of(job)
    if job.status is not JobStatus.QUEUED:
        return seen
    return structs.replace(
        seen, position=waiting.position_of(connection, job.served_model, job.priority_queue, job.sent_at)
    )


def view_of(job: JobRecord) -> JobView:
    """The row, decoded, wherever it stands."""
    return JobView(
        header=records.header_of(job),
        metadata=job.metadata_,
        end=records.end_of(job),
        result=None if job.result is None else records.result_of(job),
        has_begun=job.attempt > 0,
    )


def previous_turn(connection: Connection, job_id: str, owner: str) -> PreviousResponse:
    """The ended response that a new request continues; raises PreviousResponseNotFound."""
    try:
        found = view(connection, job_id, owner, JobKind.RESPONSE)
    except JobNotFound as error:
        raise PreviousResponseNotFound(
            f"Previous response with id '{job_id}' not found.", param="previous_response_id"
        ) from error
    if found.end is None:
        raise PreviousResponseNotFound(
            f"Previous response with id '{job_id}' has not ended yet.", param="previous_response_id"
        )
    return previous_of(found.header, found.object(found.result or Result()))
