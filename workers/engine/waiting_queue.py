"""The waiting queue: a priority queue with aging, so that every sequence becomes the first in the end."""

import heapq
import math
import sys
from collections.abc import Callable
from operator import attrgetter

from workers.engine.sequence import Sequence

_AGES_AT = attrgetter("ages_at")
# The priority of aged sequences: before any that a request can have.
_FIRST = -sys.maxsize
# Aged sequences get this share of the places, and at least one. Without a bound, many that age together would preempt
# every sequence that runs.
_AGED_SHARE = 4


class WaitingQueue:
    """Sequences without blocks: by priority, then by arrival, aged ones before all others."""

    def __init__(self, max_running: int, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._heap: list[tuple[tuple[int, int], Sequence]] = []
        # Aged sequences that have not ended, waiting or running, and the time at which the next waiting one ages.
        self._aged: set[Sequence] = set()
        self._max_aged = max(1, max_running // _AGED_SHARE)
        self._next_ages_at = math.inf

    def __len__(self) -> int:
        return len(self._heap)

    def sequences(self) -> list[Sequence]:
        """All that wait, in no order."""
        return [sequence for _, sequence in self._heap]

    @property
    def first(self) -> Sequence:
        """The first in order; there must be one."""
        return self._heap[0][1]

    def add(self, sequence: Sequence) -> None:
        """Put the sequence into the queue; its patience begins to run."""
        sequence.ages_at = self._clock() + sequence.patience_s
        if sequence not in self._aged:
            self._next_ages_at = min(self._next_ages_at, sequence.ages_at)
        heapq.heappush(self._heap, (sequence.order, sequence))

    def pop(self) -> Sequence:
        """Take the first out."""
        return heapq.heappop(self._heap)[1]

    def remove(self, sequence: Sequence) -> None:
        """Take a sequence out, wherever it stands."""
        self._heap.remove((sequence.order, sequence))
        heapq.heapify(self._heap)

    def forget(self, sequence: Sequence) -> None:
        """A sequence ended, waiting or not: another may age in its place."""
        self._aged.discard(sequence)

    def age(self) -> None:
        """Age the sequences that have waited too long, the longest overdue first, as many as may be aged at once."""
        if not self._heap or len(self._aged) >= self._max_aged or self._clock() < self._next_ages_at:
            return
        now = self._clock()
        patient = sorted((one for _, one in self._heap if one not in self._aged), key=_AGES_AT)
        overdue = [one for one in patient if one.ages_at <= now][: self._max_aged - len(self._aged)]
        for sequence in overdue:
            sequence.order = (_FIRST, sequence.order[1])
            self._aged.add(sequence)
        self._next_ages_at = min((one.ages_at for one in patient[len(overdue) :]), default=math.inf)
        self._heap = [(one.order, one) for _, one in self._heap]
        heapq.heapify(self._heap)

    def is_aged(self, sequence: Sequence) -> bool:
        """Whether the sequence has waited too long, and goes first until it ends."""
        return sequence in self._aged

    def best_priority(self) -> int:
        """The best priority of those that wait and are not aged; the worst there is where there are none."""
        return min((order[0] for order, one in self._heap if one not in self._aged), default=sys.maxsize)
