"""Who waits: how many jobs, of whom, at which place, and for how long. A copy of the rows, a second old at most.

Nothing here asks the database for one request: one look serves all, and what this process accepted since is added.
"""

import time
from collections.abc import Callable, Collection

import msgspec
from msgspec import structs
from sqlalchemy import Connection

from api.caches.database_reads import Reader
from api.caches.refresher import Refresher
from api.capacity.estimates import wait_s
from api.capacity.position_watchers import PositionWatchers
from api.capacity.throughput import Throughput, WorkerCapacity
from storage.contract import PriorityQueue
from storage.fleet import workers
from storage.fleet.tables import Worker
from storage.jobs import waiting
from storage.jobs.waiting import QueuePosition, Waiting

_LANES_UP_TO = {priority_queue: tuple(PriorityQueue)[: index + 1] for index, priority_queue in enumerate(PriorityQueue)}


class _Look(msgspec.Struct, frozen=True):
    """One look at the rows."""

    waiting: list[Waiting]
    workers: list[Worker]
    num_running: dict[str, int]
    positions: dict[str, QueuePosition]


class _Tally:
    """Jobs counted by model, by lane of each, and by owner."""

    __slots__ = ("by_model", "by_owner", "by_priority_queue")

    def __init__(self) -> None:
        self.by_model: dict[str, int] = {}
        self.by_priority_queue: dict[tuple[str, PriorityQueue], int] = {}
        self.by_owner: dict[str, dict[str, int]] = {}

    def add(self, owner: str, model: str, priority_queue: PriorityQueue, num_jobs: int = 1) -> None:
        """Count some."""
        self.by_model[model] = self.by_model.get(model, 0) + num_jobs
        self.by_priority_queue[model, priority_queue] = (
            self.by_priority_queue.get((model, priority_queue), 0) + num_jobs
        )
        of_owner = self.by_owner.setdefault(owner, {})
        of_owner[model] = of_owner.get(model, 0) + num_jobs


class QueueStatistics:
    """What waits, by model and lane, and by owner and model."""

    def __init__(
        self, reads: Reader, *, lease_s: float, refresh_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """clock: seconds, from anywhere on"""
        self.position_watchers = PositionWatchers()
        self._reads = reads
        self._clock = clock
        self._throughput = Throughput(lease_s)
        self._seen = _Tally()
        # What was accepted here since then. What comes while a look goes on may be in it or not, and counts as seen: a
        # bound may be passed by a few, but nobody is refused because of a job that was counted twice.
        self._since = _Tally()
        self._looked_at = clock()
        self._refresher = Refresher("queue_statistics", self._load, every_s=refresh_s, patience_s=reads.timeout_s)

    async def start(self) -> None:
        """Return when it is known who waits."""
        await self._refresher.start()

    async def stop(self) -> None:
        """Look no more."""
        await self._refresher.stop()

    async def look_again(self) -> None:
        """Return when a look that began after this call is done; StorageUnavailable when it failed or is late."""
        await self._refresher.renew()

    def join(self, owner: str, model: str, priority_queue: PriorityQueue) -> QueuePosition:
        """The place of a job that is queued here now, at the end of its lane."""
        self._since.add(owner, model, priority_queue)
        return QueuePosition(
            model=model,
            priority_queue=priority_queue,
            number=max(1, self.num_in_priority_queue(model, priority_queue)),
        )

    def num_waiting(self, model: str) -> int:
        """Jobs that wait for the model."""
        return self._seen.by_model.get(model, 0) + self._left_of(self._since.by_model.get(model, 0), model)

    def num_in_priority_queue(self, model: str, priority_queue: PriorityQueue) -> int:
        """Of these, those of one lane."""
        line = model, priority_queue
        return self._seen.by_priority_queue.get(line, 0) + self._left_of(
            self._since.by_priority_queue.get(line, 0), model
        )

    def num_as_urgent(self, model: str, priority_queue: PriorityQueue) -> int:
        """Jobs that wait for the model in this lane and in more urgent ones."""
        priority_queues = _LANES_UP_TO[priority_queue]
        seen, since = self._seen.by_priority_queue, self._since.by_priority_queue
        added = sum(since.get((model, one), 0) for one in priority_queues)
        return sum(seen.get((model, one), 0) for one in priority_queues) + self._left_of(added, model)

    def num_of_owner(self, owner: str) -> int:
        """Jobs of the owner that wait, for whatever model."""
        return sum(self.of_owner(owner).values())

    def of_owner(self, owner: str) -> dict[str, int]:
        """The same by model."""
        found = dict(self._seen.by_owner.get(owner, {}))
        for model, num_jobs in self._since.by_owner.get(owner, {}).items():
            found[model] = found.get(model, 0) + self._left_of(num_jobs, model)
        return found

    def capacity_of(self, model: str) -> WorkerCapacity:
        """What the model's workers can do."""
        return self._throughput.capacity_of(model)

    def wait_of(self, position: QueuePosition) -> float | None:
        """Seconds until a job at this place is begun; None as of `wait_s`."""
        num_by_priority_queue = {
            priority_queue: self.num_in_priority_queue(position.model, priority_queue)
            for priority_queue in PriorityQueue
        }
        capacity = self.capacity_of(position.model)
        # Who came since the look has taken what was free then, all but the one who asks.
        num_taken = max(0, self._since.by_model.get(position.model, 0) - 1)
        left = structs.replace(capacity, num_free=max(0, capacity.num_free - num_taken))
        return wait_s(position, num_by_priority_queue, left)

    def _left_of(self, num_added: int, model: str) -> int:
        """How many of the jobs that were added since the last look still wait; meanwhile others were begun."""
        if not num_added:
            return 0
        capacity = self.capacity_of(model)
        num_begun = capacity.num_free + capacity.jobs_per_s * (self._clock() - self._looked_at)
        return max(0, num_added - int(num_begun))

    async def _load(self) -> None:
        job_ids = self.position_watchers.job_ids()
        look = await self._reads.ask(lambda connection: _look(connection, job_ids))
        self._looked_at = self._clock()
        self._seen, self._since = _Tally(), _Tally()
        for some in look.waiting:
            self._seen.add(some.owner, some.model, some.priority_queue, some.num_jobs)
        self._throughput.look(look.workers, look.num_running, self._seen.by_model, self._looked_at)
        self.position_watchers.tell(
            job_ids, {job_id: (position, self.wait_of(position)) for job_id, position in look.positions.items()}
        )


def _look(connection: Connection, job_ids: Collection[str]) -> _Look:
    return _Look(
        waiting=waiting.count_waiting(connection),
        workers=workers.list_workers(connection),
        num_running=waiting.count_running(connection),
        positions=waiting.list_positions(connection, job_ids),
    )
