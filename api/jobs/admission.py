"""Admission control: the one place that refuses a job before its row is written."""

from api.caches.catalogue import ModelEntry
from api.jobs.job_services import JobServices
from storage.contract import PriorityQueue
from storage.errors import ModelLoadFailed, ModelUnavailable, StorageUnavailable
from storage.model_manifest import ModelStatus

_UNSERVED = (ModelStatus.OFFLINE, ModelStatus.FAILED)


async def admit(
    services: JobServices, entry: ModelEntry, owner: str, priority_queue: PriorityQueue, *, is_background: bool
) -> None:
    """Return when a job of this model can be accepted; raises StorageUnavailable, ModelUnavailable or Busy.

    The database's health is not checked here. The insert itself shows it, and a row that is not committed in time is
    removed by a compensating delete.
    """
    services.admission_limits.check(owner, entry.model, priority_queue)
    await refuse_without_redis(services)
    if not is_background:
        await _refuse_without_worker(services, entry)


async def refuse_without_redis(services: JobServices) -> None:
    """Return when Redis responds and has free memory; StorageUnavailable otherwise, within the request's time limit."""
    if services.streaming.redis_memory.is_full:
        raise StorageUnavailable("Redis has no memory left.")
    await services.streaming.redis_health.check()


async def _refuse_without_worker(services: JobServices, entry: ModelEntry) -> None:
    if entry.status in _UNSERVED:
        entry = await services.catalogue.renewed(entry)
    if entry.status is ModelStatus.FAILED:
        reason = services.catalogue.failure_of(entry.model)
        raise ModelLoadFailed(f"The model '{entry.model}' could not be loaded: {reason}")
    if entry.status in _UNSERVED:
        raise ModelUnavailable(
            f"No worker of the model '{entry.model}' is alive. Please try again later, or send the request in "
            "background to have it queued."
        )
