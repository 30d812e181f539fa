"""How many jobs may wait: in a model's queues, and of one owner. Who comes beyond that is told when there will be room.

Everybody who was refused comes back. So each is told a later moment than the one before, as if they stood in a second
line, which moves as fast as jobs are begun.
"""

import time
from collections.abc import Callable

import msgspec

from api.capacity.estimates import MAX_RETRY_AFTER_S, retry_after_s
from api.capacity.queue_statistics import QueueStatistics
from storage.contract import PriorityQueue
from storage.errors import Overloaded, TooManyWaiting

# So many lines of refused callers are remembered before those that nobody joins any more are forgotten.
_MANY = 1000


class _Refused(msgspec.Struct):
    """Those that were told to come back and have not had their turn, as of a moment."""

    num: float
    at: float


class AdmissionLimits:
    """Refuses jobs while too many wait. 0 is no bound."""

    def __init__(
        self,
        statistics: QueueStatistics,
        *,
        max_per_model: int,
        max_per_owner: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """clock: seconds, from anywhere on"""
        self._statistics = statistics
        self._max_per_model = max_per_model
        self._max_per_owner = max_per_owner
        self._clock = clock
        self._refused: dict[tuple[str, str], _Refused] = {}

    def check(self, owner: str, model: str, priority_queue: PriorityQueue) -> None:
        """Return when one more job may wait; raises TooManyWaiting for the owner, Overloaded for the model.

        The model's bound counts those that are as urgent as the job or more: who can wait never shuts out who cannot.
        """
        if self._max_per_owner and (num_jobs := self._statistics.num_of_owner(owner)) >= self._max_per_owner:
            retry_s = self._turn(("owner", owner), num_jobs - self._max_per_owner, self._rate_of(owner))
            raise TooManyWaiting(
                f"You have {num_jobs} jobs waiting, and no more than {self._max_per_owner} may. "
                f"Please try again in {retry_s} s.",
                retry_after_s=retry_s,
            )
        if (
            self._max_per_model
            and (num_jobs := self._statistics.num_as_urgent(model, priority_queue)) >= self._max_per_model
        ):
            rate = self._statistics.capacity_of(model).jobs_per_s
            retry_s = self._turn((priority_queue, model), num_jobs - self._max_per_model, rate)
            raise Overloaded(
                f"{num_jobs} jobs wait for the model '{model}', and no more than {self._max_per_model} may. "
                f"Please try again in {retry_s} s.",
                retry_after_s=retry_s,
            )

    def _rate_of(self, owner: str) -> float:
        """How many of the owner's jobs are begun in a second, as if everybody's stood mixed."""
        rate = 0.0
        for model, num_jobs in self._statistics.of_owner(owner).items():
            rate += (
                self._statistics.capacity_of(model).jobs_per_s * num_jobs / max(1, self._statistics.num_waiting(model))
            )
        return rate

    def _turn(self, line: tuple[str, str], num_over: int, jobs_per_s: float) -> int:
        """Seconds until it is the turn of one more who is refused.

        num_over: jobs that have to be begun before there is room for anybody
        """
        now = self._clock()
        before = self._refused.get(line)
        left = 0.0 if before is None else max(0.0, before.num - jobs_per_s * (now - before.at))
        # Nobody is told to wait longer than that, so nobody who was can still be away.
        self._refused[line] = _Refused(min(left + 1, jobs_per_s * MAX_RETRY_AFTER_S + 1), now)
        if len(self._refused) > _MANY:
            self._refused = {key: one for key, one in self._refused.items() if now - one.at < MAX_RETRY_AFTER_S}
        return retry_after_s(num_over + self._refused[line].num, jobs_per_s)
