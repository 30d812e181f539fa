"""Which tokens the next step computes: one budget, running sequences first, then the waiting line."""

import heapq

from workers.engine.rows import RowTable
from workers.engine.runner import Chunk
from workers.engine.sequence import Sequence


class Scheduler:
    """The waiting line and the rows. There is no prefill and no decode phase: every sequence catches up.

    suspects: sequences of a step that failed; each is computed alone until it drew a token again
    """

    def __init__(self, num_rows: int, max_batch_tokens: int) -> None:
        self.rows = RowTable(num_rows)
        self.suspects: list[Sequence] = []
        self._max_batch_tokens = max_batch_tokens
        self._waiting: list[tuple[tuple[int, int], Sequence]] = []

    @property
    def num_waiting(self) -> int:
        """Sequences without a row."""
        return len(self._waiting)

    def add(self, sequence: Sequence) -> None:
        """Put the sequence into the waiting line."""
        heapq.heappush(self._waiting, (sequence.order, sequence))

    def remove(self, sequence: Sequence) -> tuple[int, int] | None:
        """Take the sequence out, wherever it is; (row, last row) when it held a row of the cache."""
        if sequence in self.suspects:
            self.suspects.remove(sequence)
        if sequence.row is not None:
            return self.rows.vacate(sequence)
        self._waiting.remove((sequence.order, sequence))
        heapq.heapify(self._waiting)
        return None

    def plan(self) -> list[Chunk]:
        """The next step's chunks: sequences that need one token, by row, then those that catch up, then new ones."""
        if self.suspects:
            return [self._chunk(self.suspects[0], self._max_batch_tokens)]
        chunks = [self._chunk(sequence, 1) for sequence in self.rows if sequence.num_remaining == 1]
        budget = self._max_batch_tokens - len(chunks)
        behind = sorted((s for s in self.rows if s.num_remaining > 1), key=lambda sequence: sequence.order)
        while budget and (sequence := behind.pop(0) if behind else self._admit()):
            chunks.append(self._chunk(sequence, budget))
            budget -= chunks[-1].end - chunks[-1].start
        return chunks

    def restart(self, suspects: list[Sequence]) -> None:
        """Let every running sequence be computed anew, the suspects alone."""
        self.suspects = suspects
        for sequence in self.rows:
            sequence.num_computed = 0

    def _admit(self) -> Sequence | None:
        if not self._waiting or not self.rows.has_room:
            return None
        sequence = heapq.heappop(self._waiting)[1]
        self.rows.seat(sequence)
        return sequence

    def _chunk(self, sequence: Sequence, budget: int) -> Chunk:
        assert sequence.row is not None
        start = sequence.num_computed
        return Chunk(
            sequence_id=sequence.sequence_id,
            row=sequence.row,
            tokens=sequence.tokens,
            start=start,
            end=min(start + budget, len(sequence.tokens)),
            num_prompt=sequence.num_prompt,
            sampling=sequence.sampling,
        )
