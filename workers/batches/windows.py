"""Windows: of each model, only so many lines of all batches are jobs at once, and ended ones make room for the next.

Rooms in a window go to the owner with the fewest lines in it, so that no owner's batches hold up another's.
"""

import heapq
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import msgspec
from sqlalchemy import Connection

from storage.batches import batch_lines
from storage.batches.tables import Batch, BatchLine
from workers.batches.batch_services import BatchServices
from workers.batches.fair_turns import FairTurns
from workers.batches.line_jobs import LineJobs
from workers.batches.served_models import BatchModels

# Lines that name no model become no jobs; so many are refused at once.
_NUM_WITHOUT_MODEL = 256
# Of one filling. Preparing hostile lines takes long, and other batches wait for their next step.
_MAX_S = 2.0

# Runs a step of the batch with that id; False where it failed.
Guarded = Callable[[Callable[[], bool], str], bool]


class _Turn(msgspec.Struct, frozen=True, kw_only=True):
    """So many of the next lines of a batch may become jobs of a model."""

    batch: Batch
    model: str
    num_lines: int


class Windows:
    """Fills the windows of all models."""

    def __init__(self, services: BatchServices, models: BatchModels, line_jobs: LineJobs) -> None:
        self._services = services
        self._models = models
        self._line_jobs = line_jobs
        # (batch id, model) whose last line has become a job.
        self._exhausted: set[tuple[str, str]] = set()
        self._fair_turns = FairTurns()

    def fill(self, batches: Sequence[Batch], guarded: Guarded) -> bool:
        """Make jobs of the next lines of these batches; whether there is room for more at once.

        batches: those in progress, the first to be served first
        """
        ids = {batch.id for batch in batches}
        self._exhausted = {pair for pair in self._exhausted if pair[0] in ids}
        turns: dict[str, list[_Turn]] = {}
        for turn in self._turns(batches):
            turns.setdefault(turn.batch.id, []).append(turn)
        until = time.monotonic() + _MAX_S
        has_more = False
        for batch in self._fair_turns.take([batch for batch in batches if batch.id in turns]):
            for turn in turns[batch.id]:
                has_more |= guarded(partial(self._take, turn), batch.id)
            if time.monotonic() >= until:
                break
        return has_more

    def _turns(self, batches: Sequence[Batch]) -> Iterator[_Turn]:
        counts = self._services.read(lambda c: batch_lines.count_in_progress(c, [batch.id for batch in batches]))
        for model in dict.fromkeys(model for batch in batches for model in (*batch.models, "")):
            own = [
                batch for batch in batches if model in (*batch.models, "") and (batch.id, model) not in self._exhausted
            ]
            num_by_batch = {batch.id: counts.get((batch.id, model), 0) for batch in batches}
            room = (self._models.window_of(model) if model else _NUM_WITHOUT_MODEL) - sum(num_by_batch.values())
            owner_of = {batch.id: batch.owner for batch in batches}
            for batch, num_lines in _shares(own, owner_of, num_by_batch, room):
                yield _Turn(batch=batch, model=model, num_lines=num_lines)

    def _take(self, turn: _Turn) -> bool:
        """Make jobs of the lines of a turn; whether there is room for more at once."""
        lines = self._services.read(partial(_list_next, batch_id=turn.batch.id, model=turn.model, limit=turn.num_lines))
        is_exhausted = len(lines) < turn.num_lines
        if is_exhausted and not lines:
            # No line becomes queued again.
            self._exhausted.add((turn.batch.id, turn.model))
        num_read = self._line_jobs.submit(turn.batch, lines) if lines else 0
        return is_exhausted or num_read < len(lines) or not turn.model


def _shares(
    batches: Sequence[Batch], owner_of: Mapping[str, str], num_by_batch: Mapping[str, int], room: int
) -> list[tuple[Batch, int]]:
    """How many lines of each batch enter a window with that room: the owner with the fewest lines in it goes first.

    An owner's batches have their turn likewise, and in their order where they have equally many.

    num_by_batch: lines that are in the window, also of batches that have no further ones
    """
    num_by_owner: Counter[str] = Counter()
    for batch_id, num in num_by_batch.items():
        num_by_owner[owner_of[batch_id]] += num
    waiting: dict[str, list[tuple[int, int]]] = {}
    for index, batch in enumerate(batches):
        heapq.heappush(waiting.setdefault(batch.owner, []), (num_by_batch[batch.id], index))
    owners = [(num_by_owner[owner], rank, owner) for rank, owner in enumerate(waiting)]
    heapq.heapify(owners)
    shares: Counter[int] = Counter()
    for _ in range(room if owners else 0):
        num_of_owner, rank, owner = owners[0]
        num_of_batch, index = waiting[owner][0]
        shares[index] += 1
        heapq.heapreplace(waiting[owner], (num_of_batch + 1, index))
        heapq.heapreplace(owners, (num_of_owner + 1, rank, owner))
    return [(batches[index], num) for index, num in sorted(shares.items())]


def _list_next(connection: Connection, *, batch_id: str, model: str, limit: int) -> list[BatchLine]:
    return batch_lines.list_next(connection, batch_id, model, limit)
