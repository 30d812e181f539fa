"""Fair turns: owners take turns, and each owner's batch that waited longest is the next of its own."""

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import count

from storage.batches.tables import Batch


class FairTurns:
    """Remembers who had a turn. A pass that ends before all had one goes on with the others the next time."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._by_owner: dict[str, int] = {}
        self._by_batch: dict[str, int] = {}

    def take(self, batches: Sequence[Batch]) -> Iterator[Batch]:
        """These batches, each once; it has had its turn when the next one is asked for."""
        owners = {batch.owner for batch in batches}
        self._by_owner = {owner: self._by_owner.get(owner, 0) for owner in owners}
        self._by_batch = {batch.id: self._by_batch.get(batch.id, 0) for batch in batches}
        waiting: dict[str, deque[Batch]] = {}
        for batch in sorted(batches, key=lambda batch: self._by_batch[batch.id]):
            waiting.setdefault(batch.owner, deque()).append(batch)
        for owner in sorted(waiting, key=lambda owner: self._by_owner[owner]):
            waiting[owner] = waiting.pop(owner)
        while waiting:
            for owner in list(waiting):
                batch = waiting[owner].popleft()
                if not waiting[owner]:
                    del waiting[owner]
                self._by_owner[owner] = self._by_batch[batch.id] = next(self._numbers)
                yield batch
