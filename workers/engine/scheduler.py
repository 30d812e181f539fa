"""The scheduler: which tokens the next step computes, decodes first, then chunked prefills, in one token budget."""

from collections.abc import Callable
from operator import attrgetter

from storage.contract import BACKGROUND_PRIORITY
from workers.engine.blocks import BlockManager
from workers.engine.runner import Chunk
from workers.engine.sequence import Sequence
from workers.engine.step_limits import EngineLimits
from workers.engine.waiting_queue import WaitingQueue

_ORDER = attrgetter("order")
# Of `max_prefill_tokens`, background prompts have one part in so many beside foreground sequences.
_BACKGROUND_SHARE = 4


class Batch:
    """What one launch computes.

    chunks:    those of one token first
    sequences: of each chunk
    """

    __slots__ = ("chunks", "sequences")

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []
        self.sequences: list[Sequence] = []

    def add(self, chunk: Chunk, sequence: Sequence) -> None:
        """Append a chunk."""
        self.chunks.append(chunk)
        self.sequences.append(sequence)


class Scheduler:
    """The waiting queue, the running sequences, and their blocks. Prefill and decode share steps (chunked prefill).

    A running sequence has blocks for all its tokens; it gets one more when it fills the last. When there is none,
    the running sequence that comes last in order is preempted: it goes back to the waiting queue with its tokens and
    prefills again later. A waiting sequence preempts running ones of a worse priority. Aging: one that has waited for
    `aging_after_s` goes before all others until it ends, and preempts those that came later. So the first in order
    always proceeds, and every sequence becomes the first in the end.

    isolated: sequences of a step that failed; each is computed alone until it samples a token again
    cautious: sequences of a step that ran out of memory; steps are half as large until all of them have ended
    needs_zeroing: blocks given back that must be cleared before the next launch
    """

    def __init__(self, limits: EngineLimits, clock: Callable[[], float]) -> None:
        self.blocks = BlockManager(limits.num_blocks, limits.block_size)
        self.isolated: list[Sequence] = []
        self.cautious: set[Sequence] = set()
        self.needs_zeroing: list[int] = []
        self.num_preemptions = 0
        self._limits = limits
        self._clock = clock
        self._running: list[Sequence] = []
        self._waiting = WaitingQueue(limits.max_running, clock)

    @property
    def num_running(self) -> int:
        """Sequences that hold blocks and have not ended."""
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        """Sequences without blocks."""
        return len(self._waiting)

    def add(self, sequence: Sequence) -> None:
        """Put the sequence into the waiting queue."""
        self._waiting.add(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Take the sequence out, wherever it is. Its blocks stay its own until `release`."""
        self.cautious.discard(sequence)
        self._waiting.forget(sequence)
        if sequence in self.isolated:
            self.isolated.remove(sequence)
        if sequence.capacity:
            self._running.remove(sequence)
        else:
            self._waiting.remove(sequence)

    def release(self, sequence: Sequence) -> None:
        """Take back the blocks of a sequence that has left or is preempted."""
        self.needs_zeroing += self.blocks.release(
            sequence.table, sequence.tokens, sequence.num_computed, sequence.cache_salt
        )

    def restart(self) -> None:
        """The cache is empty: every running sequence waits and is computed anew."""
        self.blocks.reset()
        self.needs_zeroing = []
        for sequence in self._running:
            sequence.table.clear()
            sequence.restart()
            self.add(sequence)
        self._running = []

    def plan(self, *, is_ahead: bool) -> Batch:
        """The next launch.

        is_ahead: another launch is under way. No sequence is preempted then, for each has a token on its way. Where one
        has to be preempted, or where sequences are isolated, the batch is empty
        """
        batch = Batch()
        if self.isolated:
            if not is_ahead:
                self._plan_alone(batch, self.isolated[0])
            return batch
        self._waiting.age()
        if not self._make_way(is_ahead) or not self._grow(is_ahead):
            return batch
        decoding, prefilling = _split(self._running)
        late = self._prefills(prefilling, decoding) if prefilling or self._waiting else []
        _add_decodes(batch, decoding)
        for chunk, sequence in sorted(late, key=_has_several_tokens):
            batch.add(chunk, sequence)
        return batch

    def _prefill_budget(self, prefilling: list[Sequence], decoding: list[Sequence]) -> int:
        """Prefill tokens of a step.

        One prompt gets the limit, so that it does not stall the streams. Where many wait for their first token, each
        more adds its share of the step: delaying many for the few that stream would cost more than it saves. Where a
        foreground sequence waits for its first token, background sequences count neither way.
        """
        whole = self._halved(self._limits.max_batch_tokens)
        waiting = self._waiting.sequences()
        peers = [list(filter(_is_foreground, some)) for some in (prefilling, decoding, waiting)]
        if not peers[0] and not peers[2]:
            peers = [prefilling, decoding, waiting]
        num_prefilling, num_decoding, num_waiting = map(len, peers)
        if not num_decoding:
            return whole - len(decoding)
        num_entering = min(num_waiting, self._limits.max_running - len(self._running))
        num_others = max(0, num_prefilling + num_entering - 1)
        fair = whole * num_others // (num_others + num_decoding)
        return min(whole - len(decoding), max(fair, self._halved(self._limits.max_prefill_tokens)))

    def _halved(self, limit: int) -> int:
        return max(1, limit // 2) if self.cautious else limit

    def _prefills(self, prefilling: list[Sequence], decoding: list[Sequence]) -> list[tuple[Chunk, Sequence]]:
        """Prefill chunks of running and entering sequences, in order, until the budget is spent.

        Background prompts have a small part of a step in which a foreground sequence computes: many of them wait at
        any time, and each step would be as long as it may be.
        """
        chunks = []
        budget = self._prefill_budget(prefilling, decoding)
        has_foreground, is_bounded = any(map(_is_foreground, decoding)), False
        prefilling.sort(key=_ORDER, reverse=True)
        while budget > 0 and (sequence := self._next(prefilling)) is not None:
            is_foreground = _is_foreground(sequence)
            if has_foreground and not is_foreground and not is_bounded:
                budget = min(budget, max(1, self._limits.max_prefill_tokens // _BACKGROUND_SHARE))
                is_bounded = True
            has_foreground |= is_foreground
            chunk = self._prefill(sequence, budget)
            if chunk is not None:
                chunks.append((chunk, sequence))
                budget -= chunk.end - chunk.start
        return chunks

    def _next(self, prefilling: list[Sequence]) -> Sequence | None:
        """The first in order of those that prefill, which come last to first, and those that can enter."""
        if self._waiting and (not prefilling or self._waiting.first.order < prefilling[-1].order):
            entered = self._enter()
            if entered is not None:
                return entered
        return prefilling.pop() if prefilling else None

    def _prefill(self, sequence: Sequence, budget: int) -> Chunk | None:
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
        sequence.is_prefilling = end < num_known
        return Chunk(
            sequence_id=sequence.sequence_id,
            blocks=table.blocks,
            tokens=sequence.tokens,
            start=start,
            end=end,
            num_prompt=sequence.num_prompt,
            sampling=sequence.sampling,
            logits_from=end if sequence.is_prefilling else end - 1,
            mask=sequence.mask,
        )

    def _plan_alone(self, batch: Batch, sequence: Sequence) -> None:
        """One sequence; others that hold the blocks it needs are preempted."""
        if not sequence.capacity:
            self._waiting.remove(sequence)
            while not self._seat(sequence, num_spared=0):
                self._preempt(max(self._running, key=_ORDER))
        chunk = self._prefill(sequence, self._halved(self._limits.max_batch_tokens))
        assert chunk is not None
        batch.add(chunk, sequence)

    def _grow(self, is_ahead: bool) -> bool:
        """New blocks for sequences that filled their last; False when launches under way must be collected first."""
        # The comparison first: it is all that most sequences of most steps cost.
        full = [
            one
            for one in self._running
            if (one.num_computed == one.capacity or one.is_prefilling)
            and one.is_full
            and one.capacity < one.max_total - 1
        ]
        if not full:
            return True
        full.sort(key=_ORDER)
        for sequence in full:
            while sequence.capacity and sequence.is_full:
                if self.blocks.grow(sequence.table, sequence.tokens, sequence.num_computed, sequence.cache_salt):
                    sequence.capacity += self._limits.block_size
                elif is_ahead:
                    return False
                else:
                    self._preempt(max(self._running, key=_ORDER))
        return True

    def _make_way(self, is_ahead: bool) -> bool:
        """Preempt for waiting sequences with a better priority; False when launches must be collected first."""
        while self._waiting and self._running and (last := self._who_yields()) is not None:
            if self._enter() is not None:
                continue
            if is_ahead:
                return False
            self._preempt(last)
        return True

    def _who_yields(self) -> Sequence | None:
        """The running sequence that the first waiting one may preempt.

        An aged sequence preempts those that came later, not those that came before it.
        """
        last = max(self._running, key=_ORDER)
        first = self._waiting.first
        priority, arrival = first.order
        if self._waiting.is_aged(first):
            younger = [one for one in self._running if one.order[1] > arrival and not self._waiting.is_aged(one)]
            if younger:
                return max(younger, key=_ORDER)
            priority = self._waiting.best_priority()
        return last if last.priority > priority else None

    def _enter(self) -> Sequence | None:
        """Let the first waiting sequence run, if there is a place."""
        if not self._waiting or not self._seat(self._waiting.first, num_spared=len(self._running)):
            return None
        return self._waiting.pop()

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
        sequence.patience_s = max(0.0, sequence.ages_at - self._clock())
        self._running.append(sequence)
        return True

    def _preempt(self, sequence: Sequence) -> None:
        """Back to the waiting queue; its tokens are kept and computed again, or found in the cache."""
        self.num_preemptions += 1
        self._running.remove(sequence)
        self.release(sequence)
        sequence.restart()
        self.add(sequence)


def _is_foreground(sequence: Sequence) -> bool:
    """Whether a caller may wait for the sequence; an aged one counts as if."""
    return sequence.order[0] < BACKGROUND_PRIORITY


def _has_several_tokens(planned: tuple[Chunk, Sequence]) -> bool:
    return planned[0].end - planned[0].start > 1


def _split(running: list[Sequence]) -> tuple[list[Sequence], list[Sequence]]:
    """The decoding and the prefilling sequences; the last token of some is under way.

    A mask depends on the token before it: a sequence that has one waits until that token is known.
    """
    decoding, prefilling = [], []
    for sequence in running:
        if sequence.is_prefilling:
            prefilling.append(sequence)
        elif sequence.num_computed + 1 < sequence.max_total and (
            not sequence.must_wait or sequence.num_computed < len(sequence.tokens)
        ):
            decoding.append(sequence)
    return decoding, prefilling


def _add_decodes(batch: Batch, decoding: list[Sequence]) -> None:
    """One token each. This loop is the engine's cost of a token: it calls nothing of ours."""
    add = batch.chunks.append
    batch.sequences = decoding
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
                logits_from=start,
                is_pending=start == len(tokens),
                mask=sequence.mask,
            )
        )
