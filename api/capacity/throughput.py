"""Throughput of each model's workers: measured from the counters in their beats, estimated before that.

Only time in which jobs are queued shows what a worker can do, because an idle worker ends few jobs. The throughput of a
model is a mean over the last minutes of such time. The estimate weighs as much as one job: it decides while nothing has
been measured, and soon counts little.
"""

import math
from collections.abc import Iterable, Mapping
from datetime import datetime

import msgspec

from storage.contract import WorkerStatus
from storage.fleet.tables import Worker

# The estimate: a worker ends as many jobs in this time as it can run at once.
ASSUMED_JOB_S = 10.0
# Time constant of the mean, in seconds of workers' time.
_MEMORY_S = 120.0
# Two beats further apart than this are not measured: a clock was probably set.
_MAX_BEAT_S = 60.0


class _Beat(msgspec.Struct, frozen=True):
    """A worker's row when its beat last changed, and when that was, by our clock."""

    beat: int
    updated_at: datetime
    num_ended: int
    was_busy: bool
    changed_at: float


class _Measured(msgspec.Struct):
    """Jobs ended and seconds of workers' time, both decaying, and whether any job has ended."""

    num_ended: float = 0.0
    seconds: float = 0.0
    has_ended: bool = False

    def add(self, num_ended: int, seconds: float) -> None:
        """Add the measurement of one worker."""
        kept = math.exp(-seconds / _MEMORY_S)
        self.num_ended = self.num_ended * kept + num_ended
        self.seconds = self.seconds * kept + seconds
        self.has_ended |= num_ended > 0

    def jobs_per_s(self, estimate: float) -> float:
        """The throughput of one worker; `estimate` weighs as much as one job."""
        return (self.num_ended + 1) / (self.seconds + 1 / estimate)


class WorkerCapacity(msgspec.Struct, frozen=True, kw_only=True):
    """The capacity of a model's live workers.

    jobs_per_s:  throughput of all of them together, while jobs are queued
    num_free:    free slots
    is_measured: whether `jobs_per_s` is measured; it is the estimate alone otherwise
    """

    jobs_per_s: float = 0.0
    num_free: int = 0
    is_measured: bool = False


class Throughput:
    """The throughput of every model, updated from its workers' rows."""

    def __init__(self, lease_s: float) -> None:
        """lease_s: a worker whose beat has not changed for so long is not counted"""
        self._lease_s = lease_s
        self._beats: dict[str, _Beat] = {}
        self._measured: dict[str, _Measured] = {}
        self._capacity: dict[str, WorkerCapacity] = {}

    def update(
        self, workers: Iterable[Worker], num_running: Mapping[str, int], num_waiting: Mapping[str, int], now: float
    ) -> None:
        """Take in the rows as they are now.

        num_running: running jobs by worker
        num_waiting: queued jobs by model
        now:         monotonic seconds
        """
        ready: dict[str, list[Worker]] = {}
        for worker in workers:
            if worker.status is WorkerStatus.READY:
                ready.setdefault(worker.model, []).append(worker)
        beats: dict[str, _Beat] = {}
        self._capacity = {}
        for model, some in ready.items():
            is_busy = num_waiting.get(model, 0) > _num_free(some, num_running)
            beats |= {worker.id: self._update_worker(worker, is_busy, now) for worker in some}
            alive = [worker for worker in some if now - beats[worker.id].changed_at < self._lease_s]
            self._capacity[model] = self._capacity_of(model, alive, num_running)
        self._beats = beats

    def capacity_of(self, model: str) -> WorkerCapacity:
        """The capacity of the model's workers; zero where there are none."""
        return self._capacity.get(model, _NO_CAPACITY)

    def _update_worker(self, worker: Worker, is_busy: bool, now: float) -> _Beat:
        num_ended = (worker.engine or {}).get("num_jobs_ended", 0)
        before = self._beats.get(worker.id)
        if before is not None and before.beat == worker.beat:
            return before
        if before is not None:
            seconds = (worker.updated_at - before.updated_at).total_seconds()
            done = num_ended - before.num_ended
            if 0 < seconds <= _MAX_BEAT_S and done >= 0:
                self._measure(worker, done, seconds, was_busy=before.was_busy and is_busy)
        return _Beat(worker.beat, worker.updated_at, num_ended, is_busy, now)

    def _measure(self, worker: Worker, num_ended: int, seconds: float, *, was_busy: bool) -> None:
        measured = self._measured.setdefault(worker.model, _Measured())
        # A worker without a queue has shown that it can do at least this.
        if was_busy or num_ended / seconds > measured.jobs_per_s(_estimate(worker)):
            measured.add(num_ended, seconds)

    def _capacity_of(self, model: str, workers: list[Worker], num_running: Mapping[str, int]) -> WorkerCapacity:
        measured = self._measured.get(model, _Measured())
        return WorkerCapacity(
            jobs_per_s=sum(measured.jobs_per_s(_estimate(worker)) for worker in workers),
            num_free=_num_free(workers, num_running),
            is_measured=measured.has_ended,
        )


_NO_CAPACITY = WorkerCapacity()


def _num_free(workers: list[Worker], num_running: Mapping[str, int]) -> int:
    return sum(max(0, worker.slots - num_running.get(worker.id, 0)) for worker in workers)


def _estimate(worker: Worker) -> float:
    return max(1, worker.slots) / ASSUMED_JOB_S
