"""Cancelling a job: its row first, then its worker and its log are notified."""

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Protocol, TypeVar

from redis import Redis
from sqlalchemy import Connection

from storage.broker.event_log import append_end, control_channel, encode_cancel, read_log
from storage.contract import End, EntryKind, JobStatus, LogEntry, Result, Usage
from storage.jobs import jobs
from storage.jobs.jobs import Cancelled

T = TypeVar("T")


class Write(Protocol):
    """Runs an operation in a transaction of its own, committed when it returns."""

    def __call__(self, operation: Callable[[Connection], T], /) -> T:
        """What the operation returned."""


def cancel(
    write: Write, redis: Redis, job_id: str, now: datetime, *, num_attached: int | None = None
) -> Cancelled | None:
    """What the job was, None when it had already ended. Blocks: never on an event loop.

    num_attached: as in `jobs.cancel`, for a caller who disconnects

    Raises StorageUnavailable before the row changed, and RedisError after; then the worker's heartbeat, or the
    sweeper, completes the log.
    """
    cancelled = write(lambda connection: jobs.cancel(connection, job_id, now, num_attached=num_attached))
    if cancelled is not None:
        notify(write, redis, job_id, cancelled, now)
    return cancelled


def notify(write: Write, redis: Redis, job_id: str, cancelled: Cancelled, now: datetime) -> None:
    """Notify the worker of a job that ran; append the END to the log of one that no worker runs."""
    if cancelled.worker_id is not None:
        redis.publish(control_channel(cancelled.worker_id), encode_cancel(job_id))
        return
    result = _result_of(read_log(redis, job_id))
    usage = write(lambda connection: _settle(connection, job_id, cancelled.attempt, result))
    end = End(status=JobStatus.CANCELLED, usage=usage, ended_at=int(now.timestamp()))
    append_end(redis, job_id, cancelled.attempt, end)


def _settle(connection: Connection, job_id: str, attempt: int, result: Result) -> Usage | None:
    """The usage of a job that an earlier attempt had begun, now stored with its partial result; None without one."""
    if not result.entries:
        # An empty result is stored too: with it the job can be read without its log.
        jobs.settle_orphan(connection, job_id, attempt, result, None)
        return None
    usage = Usage(
        prompt_tokens=sum(len(prompt) for prompt in jobs.get_spec(connection, job_id).prompts),
        completion_tokens=sum(len(event.token_ids) for entry in result.entries for event in entry),
    )
    jobs.settle_orphan(connection, job_id, attempt, result, usage)
    return usage


def _result_of(log: Iterable[LogEntry]) -> Result:
    return Result(entries=tuple(entry.tokens for entry in log if entry.kind is EntryKind.TOKENS))
