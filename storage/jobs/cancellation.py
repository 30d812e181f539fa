"""Cancelling a job: its row first, then its worker and its log are notified."""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Protocol, TypeVar

from redis import Redis
from sqlalchemy import Connection

from storage.broker.event_log import append_end, control_channel, encode_cancel, read_log
from storage.contract import End, EntryKind, JobSpec, JobStatus, LogEntry, Result, Usage
from storage.jobs import jobs
from storage.jobs.jobs import Cancelled
from storage.spans import reasoning_tokens

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


def cancel_abandoned(write: Write, redis: Redis, number_by_job: Mapping[str, int], now: datetime) -> None:
    """Cancel jobs whose callers have disconnected, in one transaction. Blocks, and raises, as `cancel`.

    number_by_job: for each the `num_attached` of `jobs.cancel`
    """

    def operation(connection: Connection) -> dict[str, Cancelled]:
        found = ((job_id, jobs.cancel(connection, job_id, now, num_attached=n)) for job_id, n in number_by_job.items())
        return {job_id: cancelled for job_id, cancelled in found if cancelled is not None}

    cancelled = write(operation)
    pipeline = redis.pipeline(transaction=False)
    for job_id, one in cancelled.items():
        if one.worker_id is not None:
            pipeline.publish(control_channel(one.worker_id), encode_cancel(job_id))
    pipeline.execute()
    _end_logs(write, redis, {job_id: one for job_id, one in cancelled.items() if one.worker_id is None}, now)


def notify(write: Write, redis: Redis, job_id: str, cancelled: Cancelled, now: datetime) -> None:
    """Notify the worker of a job that ran; append the END to the log of one that no worker runs."""
    if cancelled.worker_id is not None:
        redis.publish(control_channel(cancelled.worker_id), encode_cancel(job_id))
        return
    _end_logs(write, redis, {job_id: cancelled}, now)


def _end_logs(write: Write, redis: Redis, cancelled: Mapping[str, Cancelled], now: datetime) -> None:
    """Store the partial results of jobs that no worker runs, in one transaction, and append the END to their logs."""
    if not cancelled:
        return
    results = {job_id: _result_of(read_log(redis, job_id)) for job_id in cancelled}

    def settle(connection: Connection) -> dict[str, Usage | None]:
        return {job_id: _settle(connection, job_id, one.attempt, results[job_id]) for job_id, one in cancelled.items()}

    for job_id, usage in write(settle).items():
        end = End(status=JobStatus.CANCELLED, usage=usage, ended_at=int(now.timestamp()))
        append_end(redis, job_id, cancelled[job_id].attempt, end)


def _settle(connection: Connection, job_id: str, attempt: int, result: Result) -> Usage | None:
    """The usage of a job that an earlier attempt had begun, now stored with its partial result; None without one."""
    if not result.entries:
        # An empty result is stored too: with it the job can be read without its log.
        jobs.settle_orphan(connection, job_id, attempt, result, None)
        return None
    spec = jobs.get_spec(connection, job_id)
    assert isinstance(spec, JobSpec), "only generation writes entries"
    usage = Usage(
        prompt_tokens=sum(len(prompt) for prompt in spec.prompts),
        completion_tokens=sum(len(event.token_ids) for entry in result.entries for event in entry),
        reasoning_tokens=reasoning_tokens(spec, result.entries),
    )
    jobs.settle_orphan(connection, job_id, attempt, result, usage)
    return usage


def _result_of(log: Iterable[LogEntry]) -> Result:
    return Result(entries=tuple(entry.tokens for entry in log if entry.kind is EntryKind.TOKENS))
