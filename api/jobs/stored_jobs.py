"""Stored jobs: one as its protocol shows it, complete or so far; its stream again; cancelling and erasing it."""

import asyncio
from datetime import UTC, datetime

import structlog
from redis.exceptions import RedisError
from sqlalchemy import Connection

from api.jobs.job_services import JobServices
from api.jobs.job_views import JobView, view
from api.protocol.responses.request import ResponseMove
from api.protocol.shared.tiers import priority_of
from api.streaming.subscription import Subscription
from storage.broker import event_log
from storage.contract import End, JobHeader, JobKind, JobStatus, LogEntry, Result
from storage.errors import InvalidRequest, JobNotFound, StorageUnavailable
from storage.jobs import cancellation, jobs, records, waiting
from storage.jobs.jobs import Cancelled

# How long a cancelled response is given to hand over what it had.
_SETTLE_WAIT_S = 1.0

logger = structlog.get_logger()


async def get_job(services: JobServices, job_id: str, owner: str, kind: JobKind) -> JobView:
    """The owner's job of this kind; JobNotFound for any other id."""
    return await services.database.reads.ask(lambda connection: view(connection, job_id, owner, kind))


async def so_far(services: JobServices, job: JobView) -> list[LogEntry] | Result:
    """What came of the job until now."""
    if job.is_settled and job.result is not None:
        return job.result
    if not job.has_begun:
        # A worker may have claimed it since the row was read; with its text, the job would be queued and under way.
        return Result()
    try:
        return await services.streaming.logs.read(job.header.job_id)
    except StorageUnavailable as error:
        # The row is the truth about the job's state; without Redis only its text so far is not to be had.
        logger.warning("log_unread", job_id=job.header.job_id, error=error.message)
        return Result()


async def stored_result(services: JobServices, header: JobHeader) -> Result:
    """The result of a job that has ended, from its row; raises JobNotFound where it was erased since."""

    def read(connection: Connection) -> Result:
        job = jobs.find_result(connection, header.job_id)
        if job is None:
            raise JobNotFound(f"The job '{header.job_id}' was erased.")
        return records.result_of(job)

    return await services.database.reads.ask(read)


def follow(services: JobServices, job: JobView) -> Subscription:
    """All entries of the job, those to come included."""
    if not job.is_settled:
        return services.streaming.relay.subscribe(job.header.job_id)
    subscription = Subscription(job.header.job_id)
    subscription.conclude(job.entries())
    return subscription


async def cancel(services: JobServices, job_id: str, *, num_attached: int | None = None) -> None:
    """Return when the job is cancelled or had ended; its worker is notified at once.

    num_attached: as in `jobs.cancel`
    """
    now = datetime.now(UTC)
    try:
        await asyncio.to_thread(
            lambda: cancellation.cancel(
                services.database.write, services.streaming.redis_sync, job_id, now, num_attached=num_attached
            )
        )
    except RedisError as error:
        # The row is cancelled already. Workers reread their rows, and the sweeper completes the logs of ended jobs.
        logger.warning("cancel_untold", job_id=job_id, error=str(error))


async def cancel_response(services: JobServices, job: JobView, owner: str) -> JobView:
    """The response after its cancellation; one that has ended is left as it is.

    Raises InvalidRequest for a foreground response: its caller ends it by disconnecting.
    """
    if not job.header.background:
        raise InvalidRequest("Only responses created with background=true can be cancelled.", param="response_id")
    if job.end is not None:
        return job
    subscription = services.streaming.relay.subscribe(job.header.job_id)
    try:
        await cancel(services, job.header.job_id)
        async with asyncio.timeout(_SETTLE_WAIT_S):
            while not subscription.is_ended:
                await subscription.next()
    except TimeoutError:
        pass  # the row says cancelled; its worker, or the sweeper, stores the partial result later
    finally:
        services.streaming.relay.unsubscribe(subscription)
    return await get_job(services, job.header.job_id, owner, job.header.kind)


async def move_response(services: JobServices, job: JobView, owner: str, wanted: ResponseMove) -> JobView:
    """The queued response with its new priority; raises JobConflict for one that is not queued any more."""
    priority = priority_of(wanted, is_background=job.header.background)
    ticket = await services.database.write_promptly(
        lambda connection: waiting.move(connection, job.header.job_id, owner, priority=priority, tier=wanted.sent)
    )
    if ticket is not None:
        services.tickets.send(ticket.job_id, ticket.model, ticket.priority_queue)
    return await get_job(services, job.header.job_id, owner, job.header.kind)


async def erase(services: JobServices, job_id: str, owner: str, kind: JobKind) -> None:
    """Return when request, text, log and metadata are gone; a job that runs is stopped. Raises JobNotFound."""
    # A read refuses unknown ids, so that they cost no write transaction.
    await services.database.reads.ask(lambda connection: jobs.check_kind(connection, job_id, owner, kind))
    erased = await services.database.write_promptly(lambda connection: jobs.erase(connection, job_id, owner))
    try:
        await asyncio.to_thread(_erase_log, services, job_id, erased)
    except RedisError as error:
        logger.warning("log_not_erased", job_id=job_id, error=str(error))


def _erase_log(services: JobServices, job_id: str, erased: Cancelled) -> None:
    redis = services.streaming.redis_sync
    if erased.was.is_terminal:
        event_log.delete_logs(redis, [job_id])
        return
    # Ends the streams of those who follow, and shuts out the worker, whose appends would write the log anew.
    end = End(status=JobStatus.CANCELLED, usage=None, ended_at=int(datetime.now(UTC).timestamp()))
    event_log.append_end(redis, job_id, erased.attempt, end)
    event_log.seal(redis, job_id)
    if erased.worker_id is not None:
        redis.publish(event_log.control_channel(erased.worker_id), event_log.encode_cancel(job_id))
