"""Queue statistics: queued jobs by model, priority queue and owner, positions and waiting times.

They come from a snapshot of the rows that is about a second old, plus the jobs that this process has accepted since. No
request causes a query.
"""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future

import structlog
from msgspec import structs
from sqlalchemy import Connection

from api.caches.database_reads import Reader
from api.caches.refresher import Refresher
from api.capacity.estimates import wait_s
from api.capacity.position_watchers import PositionWatchers
from api.capacity.queue_ranks import QueueRanks
from api.capacity.queue_snapshot import Queue, QueueSnapshot, read_snapshot
from api.capacity.throughput import Throughput, WorkerCapacity
from storage.contract import PriorityQueue
from storage.derived import queue_counts
from storage.errors import StorageUnavailable
from storage.jobs.waiting import QueuePosition

_QUEUES_UP_TO = {one: tuple(PriorityQueue)[: index + 1] for index, one in enumerate(PriorityQueue)}
_NONE: Mapping[str, int] = {}
# Rows of the count table beyond which the parts of its counts are merged.
_MAX_PARTS = 1000

Submit = Callable[[Callable[[Connection], None]], Future[None]]

log = structlog.get_logger()


class _Counts:
    """Jobs counted by model, by priority queue of each, and by owner."""

    __slots__ = ("by_model", "by_owner", "by_priority_queue")

    def __init__(self) -> None:
        self.by_model: dict[str, int] = {}
        self.by_priority_queue: dict[Queue, int] = {}
        self.by_owner: dict[str, dict[str, int]] = {}

    def add(self, owner: str, model: str, priority_queue: PriorityQueue, num_jobs: int = 1) -> None:
        """Count some jobs; a negative number takes them back."""
        self.by_model[model] = self.by_model.get(model, 0) + num_jobs
        self.by_priority_queue[model, priority_queue] = (
            self.by_priority_queue.get((model, priority_queue), 0) + num_jobs
        )
        of_owner = self.by_owner.setdefault(owner, {})
        of_owner[model] = of_owner.get(model, 0) + num_jobs


class Reservation:
    """A job that is counted as queued before its row is written; `release` uncounts one that was not written."""

    __slots__ = ("_counts", "_key", "position")

    def __init__(self, counts: _Counts, key: tuple[str, str, PriorityQueue], position: QueuePosition) -> None:
        self._counts = counts
        self._key = key
        self.position = position

    def release(self) -> None:
        """Uncount the job; call it at most once. After the next snapshot this changes nothing."""
        self._counts.add(*self._key, num_jobs=-1)


class QueueStatistics:
    """Queued jobs by model and priority queue, and by owner and model."""

    def __init__(
        self,
        reads: Reader,
        *,
        lease_s: float,
        refresh_s: float,
        submit: Submit | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """submit: runs an operation in a write transaction; None where the counts need no compaction
        clock:  monotonic seconds
        """
        self.position_watchers = PositionWatchers()
        self._reads = reads
        self._clock = clock
        self._submit = submit
        self._throughput = Throughput(lease_s)
        self._ranks: dict[Queue, QueueRanks] = {}
        self._counted = _Counts()
        # Jobs that this process accepted since the snapshot. Those that were accepted while it was read may be in it,
        # and count as contained: a limit may be passed by a few jobs, but no job is counted twice.
        self._accepted = _Counts()
        self._read_at = clock()
        self._refresher = Refresher("queue_statistics", self._load, every_s=refresh_s, patience_s=reads.timeout_s)

    async def start(self) -> None:
        """Return after the first snapshot, or without one where the database is slow: it comes later."""
        await self._refresher.start(may_be_late=True)

    async def stop(self) -> None:
        """Stop refreshing."""
        await self._refresher.stop()

    async def refresh(self) -> None:
        """Return after a snapshot that begins from now on; StorageUnavailable when it failed or is late."""
        await self._refresher.renew()

    def reserve(self, owner: str, model: str, priority_queue: PriorityQueue) -> Reservation:
        """Count a job that is about to be queued, at the end of its priority queue."""
        self._accepted.add(owner, model, priority_queue)
        position = QueuePosition(
            model=model,
            priority_queue=priority_queue,
            number=max(1, self.num_in_priority_queue(model, priority_queue)),
        )
        return Reservation(self._accepted, (owner, model, priority_queue), position)

    def refine(self, position: QueuePosition) -> QueuePosition:
        """The same position with an estimated number where it was only a lower bound."""
        if position.sent_at is None:
            return position
        ranks = self._ranks.get((position.model, position.priority_queue))
        number = position.number if ranks is None else ranks.position(position.sent_at)
        return structs.replace(position, number=number, sent_at=None)

    def num_waiting(self, model: str) -> int:
        """Queued jobs of the model."""
        return self._counted.by_model.get(model, 0) + self._left_of(self._accepted.by_model.get(model, 0), model)

    def num_in_priority_queue(self, model: str, priority_queue: PriorityQueue) -> int:
        """Queued jobs of the model in one priority queue."""
        key = model, priority_queue
        return self._counted.by_priority_queue.get(key, 0) + self._left_of(
            self._accepted.by_priority_queue.get(key, 0), model
        )

    def num_as_urgent(self, model: str, priority_queue: PriorityQueue) -> int:
        """Queued jobs of the model in this priority queue and in more urgent ones."""
        counted, accepted = self._counted.by_priority_queue, self._accepted.by_priority_queue
        num_counted = num_accepted = 0
        for one in _QUEUES_UP_TO[priority_queue]:
            key = model, one
            num_counted += counted.get(key, 0)
            num_accepted += accepted.get(key, 0)
        return num_counted + self._left_of(num_accepted, model)

    def num_of_owner(self, owner: str) -> int:
        """Queued jobs of the owner, of all models."""
        num_jobs = sum(self._counted.by_owner.get(owner, _NONE).values())
        for model, num_accepted in self._accepted.by_owner.get(owner, _NONE).items():
            num_jobs += self._left_of(num_accepted, model)
        return num_jobs

    def of_owner(self, owner: str) -> dict[str, int]:
        """Queued jobs of the owner by model."""
        found = dict(self._counted.by_owner.get(owner, {}))
        for model, num_jobs in self._accepted.by_owner.get(owner, {}).items():
            found[model] = found.get(model, 0) + self._left_of(num_jobs, model)
        return found

    def capacity_of(self, model: str) -> WorkerCapacity:
        """The capacity of the model's workers."""
        return self._throughput.capacity_of(model)

    def wait_of(self, position: QueuePosition) -> float | None:
        """Seconds until a job at this position starts; None as of `wait_s`."""
        num_by_priority_queue = {
            priority_queue: self.num_in_priority_queue(position.model, priority_queue)
            for priority_queue in PriorityQueue
        }
        capacity = self.capacity_of(position.model)
        # Jobs that were accepted since the snapshot, but for this one, have taken slots that were free then.
        num_taken = max(0, self._accepted.by_model.get(position.model, 0) - 1)
        left = structs.replace(capacity, num_free=max(0, capacity.num_free - num_taken))
        return wait_s(position, num_by_priority_queue, left)

    def _left_of(self, num_accepted: int, model: str) -> int:
        """How many of the jobs that were accepted since the snapshot are still queued; some have started."""
        if not num_accepted:
            return 0
        capacity = self.capacity_of(model)
        num_started = capacity.num_free + capacity.jobs_per_s * (self._clock() - self._read_at)
        return max(0, num_accepted - int(num_started))

    async def _load(self) -> None:
        watched = self.position_watchers.job_ids()
        last_samples = {queue: ranks.last for queue, ranks in self._ranks.items()}
        snapshot = await self._reads.ask(lambda connection: read_snapshot(connection, watched, last_samples))
        self._read_at = self._clock()
        self._counted, self._accepted = _Counts(), _Counts()
        for one in snapshot.waiting:
            self._counted.add(one.owner, one.model, one.priority_queue, one.num_jobs)
        self._throughput.update(snapshot.workers, snapshot.num_running, self._counted.by_model, self._read_at)
        self._update_ranks(snapshot)
        found = {job_id: self.refine(position) for job_id, position in snapshot.positions.items()}
        self.position_watchers.update(
            watched, {job_id: (position, self.wait_of(position)) for job_id, position in found.items()}
        )
        self._compact(sum(one.num_parts for one in snapshot.waiting))

    def _update_ranks(self, snapshot: QueueSnapshot) -> None:
        self._ranks = {queue: self._ranks.get(queue) or QueueRanks() for queue in snapshot.deep}
        for queue, deep in snapshot.deep.items():
            self._ranks[queue].update(deep)

    def _compact(self, num_parts: int) -> None:
        if num_parts <= _MAX_PARTS or self._submit is None:
            return
        try:
            self._submit(queue_counts.compact)
        except StorageUnavailable as error:
            log.warning("queue_counts_not_compacted", error=error.message)
