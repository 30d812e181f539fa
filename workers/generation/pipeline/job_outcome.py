"""How a generation's end reaches its row: operations for the writer, each guarded by the attempt.

They may run twice, and they may find that someone else was faster; what they return is what the row says now.
"""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum

from sqlalchemy import Connection

from api.protocol.conversations.turn_items import turn_items
from storage.contract import End, JobHeader
from storage.conversations.conversation_items import NewItem, new_items
from storage.jobs import jobs, records
from workers.generation.pipeline.job_generation import Generation


class Left(StrEnum):
    """Why a job leaves this worker without an END."""

    GIVEN_BACK = "given_back"  # its row is queued again
    OWNERSHIP_LOST = "ownership_lost"  # its row belongs to another attempt
    ERASED = "erased"  # it has no row any more


def turn_of(generation: Generation, header: JobHeader) -> list[NewItem]:
    """The items that a generation that ended well adds to its conversation."""
    end = End(status=generation.status, usage=None, ended_at=0)
    return new_items(turn_items(header, generation.result(), end))


def finish(
    connection: Connection, generation: Generation, now: datetime, turn: Sequence[NewItem] | None = None
) -> End | Left:
    """Commit the outcome of a finished generation, with the items of its turn."""
    if _commit(connection, generation, now, turn):
        return End(
            status=generation.status,
            usage=generation.usage(),
            ended_at=int(now.timestamp()),
            failure=generation.failure,
        )
    return _settle(connection, generation)


def leave(connection: Connection, generation: Generation, now: datetime) -> End | Left:
    """Part from a generation that was stopped: its row goes back to the queue unless it is ended or another's."""
    if jobs.requeue(connection, generation.job_id, generation.attempt):
        return Left.GIVEN_BACK
    return _settle(connection, generation)


def _commit(connection: Connection, generation: Generation, now: datetime, turn: Sequence[NewItem] | None) -> bool:
    job_id, attempt, failure = generation.job_id, generation.attempt, generation.failure
    result, usage = generation.result(), generation.usage()
    first = generation.first_token_at
    if failure is not None:
        return jobs.fail(connection, job_id, attempt, failure, result, usage, now, first_token_at=first)
    return jobs.complete(
        connection,
        job_id,
        attempt,
        status=generation.status,
        result=result,
        usage=usage,
        now=now,
        first_token_at=first,
        turn=turn,
    )


def _settle(connection: Connection, generation: Generation) -> End | Left:
    """What became of a job that this attempt no longer runs; one that was ended from outside keeps what came of it."""
    job_id, attempt = generation.job_id, generation.attempt
    jobs.settle_stopped(connection, job_id, attempt, generation.result(), generation.usage())
    job = jobs.find_summary(connection, job_id)
    if job is None:
        return Left.ERASED
    end = records.end_of(job) if job.attempt == attempt else None
    return end or Left.OWNERSHIP_LOST
