"""Reading stored jobs: one as its protocol shows it, complete or so far; cancelling and erasing."""

import asyncio
from datetime import UTC, datetime

from api.protocol.folds import object_of
from api.services import Services, ended_entries
from storage import cancellation, jobs, log
from storage.contract import EntryKind, JobKind, JobStatus, LogEntry
from storage.errors import InvalidRequest, JobNotFound
from storage.tables import Job

# How long a cancel waits for the worker to hand over what it had.
_SETTLE_WAIT_S = 2.0


async def get_job(services: Services, job_id: str, owner: str, *kinds: JobKind) -> Job:
    """The owner's job of one of these kinds; JobNotFound for any other."""
    job = await services.read(lambda connection: jobs.get(connection, job_id, owner))
    if job.kind not in kinds:
        raise JobNotFound(f"No job with id '{job_id}'.")
    return job


async def object_of_job(services: Services, job: Job) -> dict[str, object]:
    """The job as its protocol shows it now: from its row once it has ended, from its log while it runs."""
    header, metadata = jobs.header_of(job), job.metadata_
    if job.status.is_terminal:
        entries = ended_entries(job, datetime.now(UTC))
        if entries is not None:
            return object_of(header, entries, metadata=metadata)
    so_far = await entries_so_far(services, job.id)
    return object_of(header, so_far, jobs.end_of(job), metadata=metadata)


async def entries_so_far(services: Services, job_id: str) -> list[LogEntry]:
    """What a running job's log holds of tokens."""
    raw = await services.async_redis.xrange(log.log_key(job_id))
    return [entry for entry in log.parse_entries(raw) if entry.kind is EntryKind.TOKENS]


async def cancel_response(services: Services, job: Job, owner: str) -> Job:
    """The response after its cancellation; one that has ended is left as it is.

    Raises InvalidRequest for a response that somebody waits for: its caller ends it by leaving.
    """
    if job.status.is_terminal:
        return job
    if not job.background:
        raise InvalidRequest("Only responses created with background=true can be cancelled.", param="response_id")
    subscription = services.relay.follow(job.id)
    try:
        await services.cancel(job.id)
        async with asyncio.timeout(_SETTLE_WAIT_S):
            while (await subscription.read())[-1].kind is not EntryKind.END:
                pass
    except TimeoutError:
        pass  # The row says cancelled; what came of the job follows when its worker, or the sweeper, is heard.
    finally:
        subscription.close()
    return await get_job(services, job.id, owner, job.kind)


async def erase_job(services: Services, job: Job, owner: str) -> None:
    """Stop the job if it runs, then forget it: row, text and log."""
    now = datetime.now(UTC)
    erased = await services.writer.call(lambda connection: jobs.erase(connection, job.id, owner))

    def forget() -> None:
        if erased.was is JobStatus.IN_PROGRESS and erased.worker_id is not None:
            services.redis.publish(log.control_channel(erased.worker_id), log.encode_cancel(job.id))
        elif erased.was is JobStatus.QUEUED:
            # Readers of its stream, if there are any, get an end.
            cancellation.spread(
                lambda operation: services.writer.submit(operation).result(), services.redis, job.id, erased, now
            )
        else:
            log.delete_logs(services.redis, [job.id])

    await services.on_thread(forget)
