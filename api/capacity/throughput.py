"""How fast each model's queue moves: measured from what its workers tell with their beats, estimated before that.

Only time in which jobs wait tells what a worker can do; an idle one ends few jobs for want of them. Each model's figure
is a mean over the last minutes of such time, in which one job that nobody ran stands for the estimate: it decides while
nothing is measured, and counts little soon.
"""

import math
from collections.abc import Iterable, Mapping
from datetime import datetime

import msgspec

from storage.contract import WorkerStatus
from storage.fleet.tables import Worker

# Before anything is measured: a worker ends as many jobs in this time as it can run at once.
ASSUMED_JOB_S = 10.0
# How long a measurement counts, in seconds of workers' time; then it has faded to a third.
_MEMORY_S = 120.0
# Two beats further apart than this say more about a clock than about a worker.
_MAX_BEAT_S = 60.0


class _Seen(msgspec.Struct, frozen=True):
    """A worker's row when its beat was last seen to move, and when that was, by our clock."""

    beat: int
    told_at: datetime
    num_ended: int
    was_busy: bool
    seen_at: float


class _Measured(msgspec.Struct):
    """Jobs ended and seconds of workers' time, both fading; whether any job ended at all."""

    num_ended: float = 0.0
    seconds: float = 0.0
    has_ended: bool = False

    def add(self, num_ended: int, seconds: float) -> None:
        """Take in what one worker did."""
        kept = math.exp(-seconds / _MEMORY_S)
        self.num_ended = self.num_ended * kept + num_ended
        self.seconds = self.seconds * kept + seconds
        self.has_ended |= num_ended > 0

    def jobs_per_s(self, estimate: float) -> float:
        """Of one worker; `estimate` weighs as much as one job."""
        return (self.num_ended + 1) / (self.seconds + 1 / estimate)


class WorkerCapacity(msgspec.Struct, frozen=True, kw_only=True):
    """What the live workers of a model can do.

    jobs_per_s:  of all of them together, while jobs wait
    num_free:    jobs that they could run at once besides those that they run
    is_measured: whether a job's end has a part in `jobs_per_s`, or it is the estimate alone
    """

    jobs_per_s: float = 0.0
    num_free: int = 0
    is_measured: bool = False


class Throughput:
    """What was seen of the workers so far."""

    def __init__(self, lease_s: float) -> None:
        """lease_s: a worker whose beat has not moved for so long is not counted on"""
        self._lease_s = lease_s
        self._seen: dict[str, _Seen] = {}
        self._measured: dict[str, _Measured] = {}
        self._capacity: dict[str, WorkerCapacity] = {}

    def look(
        self, workers: Iterable[Worker], num_running: Mapping[str, int], num_waiting: Mapping[str, int], now: float
    ) -> None:
        """Take in what the rows say now.

        num_running: jobs that run, by worker
        num_waiting: jobs that wait, by model
        now:         seconds, from anywhere on
        """
        ready: dict[str, list[Worker]] = {}
        for worker in workers:
            if worker.status is WorkerStatus.READY:
                ready.setdefault(worker.model, []).append(worker)
        seen: dict[str, _Seen] = {}
        self._capacity = {}
        for model, some in ready.items():
            is_busy = num_waiting.get(model, 0) > _num_free(some, num_running)
            seen |= {worker.id: self._look_at(worker, is_busy, now) for worker in some}
            alive = [worker for worker in some if now - seen[worker.id].seen_at < self._lease_s]
            self._capacity[model] = self._power_of(model, alive, num_running)
        self._seen = seen

    def capacity_of(self, model: str) -> WorkerCapacity:
        """What the model's workers can do; nothing where there are none."""
        return self._capacity.get(model, _NO_POWER)

    def _look_at(self, worker: Worker, is_busy: bool, now: float) -> _Seen:
        num_ended = (worker.engine or {}).get("num_jobs_ended", 0)
        before = self._seen.get(worker.id)
        if before is not None and before.beat == worker.beat:
            return before
        if before is not None:
            seconds = (worker.updated_at - before.told_at).total_seconds()
            done = num_ended - before.num_ended
            if 0 < seconds <= _MAX_BEAT_S and done >= 0:
                self._measure(worker, done, seconds, was_busy=before.was_busy and is_busy)
        return _Seen(worker.beat, worker.updated_at, num_ended, is_busy, now)

    def _measure(self, worker: Worker, num_ended: int, seconds: float, *, was_busy: bool) -> None:
        measured = self._measured.setdefault(worker.model, _Measured())
        # Without a queue the worker can do at least this.
        if was_busy or num_ended / seconds > measured.jobs_per_s(_estimate(worker)):
            measured.add(num_ended, seconds)

    def _power_of(self, model: str, workers: list[Worker], num_running: Mapping[str, int]) -> WorkerCapacity:
        measured = self._measured.get(model, _Measured())
        return WorkerCapacity(
            jobs_per_s=sum(measured.jobs_per_s(_estimate(worker)) for worker in workers),
            num_free=_num_free(workers, num_running),
            is_measured=measured.has_ended,
        )


_NO_POWER = WorkerCapacity()


def _num_free(workers: list[Worker], num_running: Mapping[str, int]) -> int:
    return sum(max(0, worker.slots - num_running.get(worker.id, 0)) for worker in workers)


def _estimate(worker: Worker) -> float:
    return max(1, worker.slots) / ASSUMED_JOB_S
