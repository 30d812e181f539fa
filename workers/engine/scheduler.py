"""Which tokens the next step computes: one budget, decoding sequences first, then those that catch up or wait."""

import heapq
import math
import sys
from collections.abc import Callable
from operator import attrgetter

from workers.engine.blocks import BlockManager
from workers.engine.runner import Chunk
from workers.engine.sequence import Sequence
from workers.engine.step_limits import EngineLimits

_ORDER = attrgetter("order")
_STARVES_AT = attrgetter("starves_at")
# The priority of those that starve: before any that can be asked for.
_FIRST = -sys.maxsize
# Of the places, this share goes to those that starve, and at least one place; or a crowd that starves together would
# push out everybody who is being served.
_STARVED_SHARE = 4


class Batch:
    """What one launch computes.

    chunks:    those of one token first
    sequences: of each chunk
    sampled:   those that a token is drawn for, in the order of their chunks
    """

    __slots__ = ("chunks", "sampled", "sequences")

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []
        self.sequences: list[Sequence] = []
        self.sampled: list[Sequence] = []

    def add(self, chunk: Chunk, sequence: Sequence) -> None:
        """Append a chunk."""
        self.chunks.append(chunk)
        self.sequences.append(sequence)
        if chunk.is_sampled:
            self.sampled.append(sequence)


class Scheduler:
    """The waiting line, the sequences that run, and their blocks. There is no prefill phase: everyone catches up.

    A running sequence has blocks for all its tokens; it gets one more when it fills the last. When there is none,
    the running sequence that comes last in order is preempted: it goes back to the waiting line with its tokens and
    catches up later. One that waits takes the place of those with a worse priority. One that has waited for
    `starve_after_s` starves: it goes before all others until it ends, and takes the place of those that came later.
    So the first in order always goes on, and everyone becomes the first at last.

    suspects: sequences of a step that failed; each is computed alone until it drew a token again
    cautious: sequences of a step that ran out of memory; steps are half as large until all of them have ended
    unclean:  blocks given back that must be cleared before the next launch
    """

    def __init__(self, limits: EngineLimits, clock: Callable[[], float]) -> None:
        self.blocks = BlockManager(limits.num_blocks, limits.block_size)
        self.suspects: list[Sequence] = []
        self.cautious: set[Sequence] = set()
        self.unclean: list[int] = []
        self.num_preemptions = 0
        self._limits = limits
        self._clock = clock
        self._running: list[Sequence] = []
        self._waiting: list[tuple[tuple[int, int], Sequence]] = []
        # Those that starved and have not ended, and when the next one of those that wait will.
        self._starved: set[Sequence] = set()
        self._max_starved = max(1, limits.max_running // _STARVED_SHARE)
        self._next_starves_at = math.inf

    @property
    def num_running(self) -> int:
        """Sequences that hold blocks and have not ended."""
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        """Sequences without blocks."""
        return len(self._waiting)

    def add(self, sequence: Sequence) -> None:
        """Put the sequence into the waiting line."""
        sequence.starves_at = self._clock() + sequence.patience_s
        if sequence not in self._starved:
            self._next_starves_at = min(self._next_starves_at, sequence.starves_at)
        heapq.heappush(self._waiting, (sequence.order, sequence))

    def remove(self, sequence: Sequence) -> None:
        """Take the sequence out, wherever it is. Its blocks stay its own until `release`."""
        self.cautious.discard(sequence)
        self._starved.discard(sequence)
        if sequence in self.suspects:
            self.suspects.remove(sequence)
        if sequence.capacity:
            self._running.remove(sequence)
        else:
            self._waiting.remove((sequence.order, sequence))
            heapq.heapify(self._waiting)

    def release(self, sequence: Sequence) -> None:
        """Take back the blocks of a sequence that has left or is preempted."""
        self.unclean += self.blocks.release(sequence.table, sequence.tokens, sequence.num_computed, sequence.cache_salt)

    def restart(self) -> None:
        """The cache is empty: let everyone wait and be computed anew."""
        self.blocks.reset()
        self.unclean = []
        for sequence in self._running:
            sequence.table.clear()
            sequence.restart()
            self.add(sequence)
        self._running = []

    def plan(self, *, is_ahead: bool) -> Batch:
        """The next launch.

        is_ahead: another launch is under way. Nobody is preempted then, for a token is on its way to everyone; when
        somebody has to be, or when there are suspects, the batch is empty
        """
        batch = Batch()
        if self.suspects:
            if not is_ahead:
                self._plan_alone(batch, self.suspects[0])
            return batch
        self._look_for_starved()
        if not self._make_way(is_ahead) or not self._grow(is_ahead):
            return batch
        decoding, behind = self._split()
        late = self._catch_ups(behind, self._catch_up_budget(len(decoding), len(behind)))
        self._add_decodes(batch, decoding)
        for chunk, sequence in sorted(late, key=_has_several_tokens):
            batch.add(chunk, sequence)
        return batch

    def _look_for_starved(self) -> None:
        """Let those that have waited too long go first, the longest overdue before others, as many as may."""
        if not self._waiting or len(self._starved) >= self._max_starved or self._clock() < self._next_starves_at:
            return
        now = self._clock()
        patient = sorted((one for _, one in self._waiting if one not in self._starved), key=_STARVES_AT)
        overdue = [one for one in patient if one.starves_at <= now][: self._max_starved - len(self._starved)]
        for sequence in overdue:
            sequence.order = (_FIRST, sequence.order[1])
            self._starved.add(sequence)
        self._next_starves_at = min((one.starves_at for one in patient[len(overdue) :]), default=math.inf)
        self._waiting = [(one.order, one) for _, one in self._waiting]
        heapq.heapify(self._waiting)

    def _catch_up_budget(self, num_decoding: int, num_behind: int) -> int:
        """Tokens of a step for those that catch up.

        One prompt gets the limit, so that it does not stall the streams. Where many wait for their first token, each
        more adds its share of the step: holding a crowd back for the few that stream would cost more than it saves.
        """
        whole = self._halved(self._limits.max_batch_tokens)
        if not num_decoding:
            return whole
        num_entering = min(len(self._waiting), self._limits.max_running - len(self._running))
        crowd = max(0, num_behind + num_entering - 1)
        fair = whole * crowd // (crowd + num_decoding)
        return min(whole - num_decoding, max(fair, self._halved(self._limits.max_catch_up_tokens)))

    def _halved(self, limit: int) -> int:
        return max(1, limit // 2) if self.cautious else limit

    def _split(self) -> tuple[list[Sequence], list[Sequence]]:
        """Those that need their next token, and those that catch up; the last token of some is under way."""
        decoding, behind = [], []
        for sequence in self._running:
            if sequence.is_behind:
                behind.append(sequence)
            elif sequence.num_computed + 1 < sequence.max_total:
                decoding.append(sequence)
        return decoding, behind

    def _add_decodes(self, batch: Batch, decoding: list[Sequence]) -> None:
        """One token each. This loop is the engine's cost of a token: it calls nothing of ours."""
        add = batch.chunks.append
        batch.sequences = decoding
        batch.sampled = decoding.copy()
        for sequence in decoding:
            start, tokens = sequence.num_computed, sequence.tokens
            sequence.num_computed = start + 1
            add(
                Chunk(
                    sequence_id=sequence.sequence_id,
                    blocks=sequence.table.blocks,
                    tokens=tokens,
                    start=start,
                    end=start + 1,
                    num_prompt=sequence.num_prompt,
                    sampling=sequence.sampling,
                    is_pending=start == len(tokens),
                )
            )

    def _catch_ups(self, behind: list[Sequence], budget: int) -> list[tuple[Chunk, Sequence]]:
        """Chunks of sequences that catch up or enter, in order, until the budget is spent."""
        chunks = []
        behind.sort(key=_ORDER, reverse=True)
        while budget > 0 and (sequence := self._next(behind)) is not None:
            chunk = self._catch_up(sequence, budget)
            if chunk is not None:
                chunks.append((chunk, sequence))
                budget -= chunk.end - chunk.start
        return chunks

    def _next(self, behind: list[Sequence]) -> Sequence | None:
        """The first in order of those that catch up, which come last to first, and those that can enter."""
        if self._waiting and (not behind or self._waiting[0][0] < behind[-1].order):
            entered = self._enter()
            if entered is not None:
                return entered
        return behind.pop() if behind else None

    def _catch_up(self, sequence: Sequence, budget: int) -> Chunk | None:
        """The next part that the sequence computes; None while it waits for others to compute what they share."""
        table, num_known = sequence.table, len(sequence.tokens)
        start = self.blocks.skip(table, sequence.num_computed)
        sequence.num_cached += start - sequence.num_computed
        sequence.num_computed = start
        end = self.blocks.claim(table, start, min(start + budget, num_known))
        if end == start:
            return None
        self.blocks.complete(table, start, end)
        sequence.num_computed = end
        sequence.is_behind = end < num_known
        return Chunk(
            sequence_id=sequence.sequence_id,
            blocks=table.blocks,
            tokens=sequence.tokens,
            start=start,
            end=end,
            num_prompt=sequence.num_prompt,
            sampling=sequence.sampling,
        )

    def _plan_alone(self, batch: Batch, suspect: Sequence) -> None:
        """One sequence; whoever else holds the blocks it needs gives them back."""
        if not suspect.capacity:
            self._waiting.remove((suspect.order, suspect))
            heapq.heapify(self._waiting)
            while not self._seat(suspect, num_spared=0):
                self._preempt(max(self._running, key=_ORDER))
        chunk = self._catch_up(suspect, self._halved(self._limits.max_batch_tokens))
        assert chunk is not None
        batch.add(chunk, suspect)

    def _grow(self, is_ahead: bool) -> bool:
        """One more block for everyone who filled the last; False when launches under way must be collected first."""
        full = [one for one in self._running if one.num_computed == one.capacity and one.capacity < one.max_total - 1]
        if not full:
            return True
        full.sort(key=_ORDER)
        for sequence in full:
            while sequence.capacity and not self.blocks.grow(sequence.table, sequence.tokens, sequence.cache_salt):
                if is_ahead:
                    return False
                self._preempt(max(self._running, key=_ORDER))
            if sequence.capacity:
                sequence.capacity += self._limits.block_size
        return True

    def _make_way(self, is_ahead: bool) -> bool:
        """Let those with a better priority take the places of others; False when launches must be collected first."""
        while self._waiting and self._running and (last := self._who_yields()) is not None:
            if self._enter() is not None:
                continue
            if is_ahead:
                return False
            self._preempt(last)
        return True

    def _who_yields(self) -> Sequence | None:
        """The running sequence whose place somebody who waits may take.

        One that starves takes the place of those that came later, not of those that were here before it.
        """
        last = max(self._running, key=_ORDER)
        (priority, arrival), first = self._waiting[0]
        if first in self._starved:
            younger = [one for one in self._running if one.order[1] > arrival and one not in self._starved]
            if younger:
                return max(younger, key=_ORDER)
            priority = min((order[0] for order, one in self._waiting if one not in self._starved), default=sys.maxsize)
        return last if last.priority > priority else None

    def _enter(self) -> Sequence | None:
        """Let whoever waits first run, if there is a place."""
        if not self._waiting or not self._seat(self._waiting[0][1], num_spared=len(self._running)):
            return None
        return heapq.heappop(self._waiting)[1]

    def _seat(self, sequence: Sequence, num_spared: int) -> bool:
        """Let the sequence run if there is room for it.

        num_spared: blocks that are left for those that run; each will need one soon
        """
        if len(self._running) >= self._halved(self._limits.max_running):
            return False
        if not self.blocks.admit(
            sequence.table,
            sequence.tokens,
            salt=sequence.cache_salt,
            reads_cache=sequence.reads_cache,
            num_spared=num_spared,
        ):
            return False
        sequence.capacity = len(sequence.table.blocks) * self._limits.block_size
        sequence.patience_s = max(0.0, sequence.starves_at - self._clock())
        self._running.append(sequence)
        return True

    def _preempt(self, sequence: Sequence) -> None:
        """Back to the waiting line; its tokens are kept and computed again, or found in the cache."""
        self.num_preemptions += 1
        self._running.remove(sequence)
        self.release(sequence)
        sequence.restart()
        self.add(sequence)


def _has_several_tokens(planned: tuple[Chunk, Sequence]) -> bool:
    return planned[0].end - planned[0].start > 1
