"""Admission limits: how many jobs may be queued for a model, and of one owner.

Refused clients retry. `Retry-After` therefore grows with each refusal, so that retries are spread out at the rate at
which jobs start.
"""

import time
from collections.abc import Callable

import msgspec

from api.capacity.estimates import MAX_RETRY_AFTER_S, retry_after_s
from api.capacity.queue_statistics import QueueStatistics
from storage.contract import PriorityQueue
from storage.errors import Overloaded, TooManyWaiting

# Beyond so many counts of refusals, the old ones are dropped.
_MAX_REFUSAL_COUNTS = 1000


class _Refused(msgspec.Struct):
    """Refused requests whose retry slot has not come, as of a moment."""

    num: float
    at: float


class AdmissionLimits:
    """Refuses jobs while too many are queued. 0 is no limit."""

    def __init__(
        self,
        statistics: QueueStatistics,
        *,
        max_per_model: int,
        max_per_owner: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """clock: monotonic seconds"""
        self._statistics = statistics
        self._max_per_model = max_per_model
        self._max_per_owner = max_per_owner
        self._clock = clock
        self._refused: dict[tuple[str, str], _Refused] = {}

    def check(self, owner: str, model: str, priority_queue: PriorityQueue) -> None:
        """Return when one more job may be queued; raises TooManyWaiting for the owner, Overloaded for the model.

        The model's limit counts jobs that are at least as urgent, so that less urgent jobs never block urgent ones.
        """
        if self._max_per_owner and (num_jobs := self._statistics.num_of_owner(owner)) >= self._max_per_owner:
            retry_s = self._retry_slot(("owner", owner), num_jobs - self._max_per_owner, self._rate_of(owner))
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
            retry_s = self._retry_slot((priority_queue, model), num_jobs - self._max_per_model, rate)
            raise Overloaded(
                f"{num_jobs} jobs wait for the model '{model}', and no more than {self._max_per_model} may. "
                f"Please try again in {retry_s} s.",
                retry_after_s=retry_s,
            )

    def _rate_of(self, owner: str) -> float:
        """How many of the owner's jobs start in a second, if the jobs of all owners are evenly mixed."""
        rate = 0.0
        for model, num_jobs in self._statistics.of_owner(owner).items():
            rate += (
                self._statistics.capacity_of(model).jobs_per_s * num_jobs / max(1, self._statistics.num_waiting(model))
            )
        return rate

    def _retry_slot(self, key: tuple[str, str], num_over: int, jobs_per_s: float) -> int:
        """The retry slot of one more refused request, in seconds from now.

        num_over: jobs that have to start before any request is admitted
        """
        now = self._clock()
        before = self._refused.get(key)
        left = 0.0 if before is None else max(0.0, before.num - jobs_per_s * (now - before.at))
        # No retry slot is later than MAX_RETRY_AFTER_S, so older refusals have been retried.
        self._refused[key] = _Refused(min(left + 1, jobs_per_s * MAX_RETRY_AFTER_S + 1), now)
        if len(self._refused) > _MAX_REFUSAL_COUNTS:
            self._refused = {known: one for known, one in self._refused.items() if now - one.at < MAX_RETRY_AFTER_S}
        return retry_after_s(num_over + self._refused[key].num, jobs_per_s)
