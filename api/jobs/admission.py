"""Whether a job can be taken now: the one place that says no, before any row is written."""

from api.caches.catalogue import ModelEntry
from api.services import Services
from storage.contract import ModelStatus, PriorityQueue
from storage.errors import ModelUnavailable, StorageUnavailable

_UNSERVED = (ModelStatus.OFFLINE, ModelStatus.FAILED)


async def admit(
    services: Services, entry: ModelEntry, owner: str, priority_queue: PriorityQueue, *, is_background: bool
) -> None:
    """Return when a job of this model can be taken; StorageUnavailable, ModelUnavailable or Busy where it cannot.

    The database is not asked: the row itself is the question, and one that is not written in time is taken back.
    """
    services.admission_limits.check(owner, entry.model, priority_queue)
    await refuse_without_redis(services)
    if not is_background:
        await _refuse_if_nobody_works(services, entry)


async def refuse_without_redis(services: Services) -> None:
    """Return when Redis answers and has room; StorageUnavailable when not, soon enough to say so in time."""
    if services.redis_memory.is_full:
        raise StorageUnavailable("Redis has no memory left.")
    await services.redis_pulse.check()


async def _refuse_if_nobody_works(services: Services, entry: ModelEntry) -> None:
    if entry.status in _UNSERVED:
        entry = await services.catalogue.renewed(entry)
    if entry.status in _UNSERVED:
        raise ModelUnavailable(
            f"No worker of the model '{entry.model}' is alive. Please try again later, or send the request in "
            "background: then it is queued."
        )
