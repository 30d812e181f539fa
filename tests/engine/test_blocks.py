"""Blocks alone: sequences compute in any order, also those that share what is not computed yet."""

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.engine.invariants import check_blocks
from workers.engine.blocks import BlockManager, BlockTable

SIZE = 2
NUM_BLOCKS = 14
PROMPTS = st.tuples(st.integers(0, 13), st.lists(st.integers(1, 2), min_size=1, max_size=4)).map(
    lambda two: [1] * two[0] + two[1]
)


@dataclass(eq=False)
class Holder:
    """A sequence as far as blocks know it."""

    tokens: list[int]
    salt: str = ""
    table: BlockTable = field(default_factory=BlockTable)
    num_computed: int = 0


class Cache:
    """A cache that remembers ids, and whoever holds its blocks."""

    def __init__(self) -> None:
        self.blocks = BlockManager(NUM_BLOCKS, SIZE)
        self.memory = [[0] * SIZE for _ in range(NUM_BLOCKS)]
        self.holders: list[Holder] = []

    def admit(self, tokens: list[int], salt: str = "", *, reads_cache: bool = True) -> Holder | None:
        """A new holder, if there is room for it."""
        holder = Holder(list(tokens), salt)
        if not self.blocks.admit(holder.table, tokens, salt=salt, reads_cache=reads_cache, num_spared=0):
            return None
        self.holders.append(holder)
        return holder

    def compute(self, holder: Holder, num_tokens: int = 100) -> int:
        """Catch up by so many tokens; how many it was."""
        start = self.blocks.skip(holder.table, holder.num_computed)
        end = self.blocks.claim(holder.table, start, min(start + num_tokens, len(holder.tokens)))
        for position in range(start, end):
            block = holder.table.blocks[position // SIZE]
            writer = self.blocks._writer_by_block.get(block)
            assert writer is holder.table or (writer is None and self.blocks._num_refs[block] == 1)
            self.memory[block][position % SIZE] = holder.tokens[position]
        self.blocks.complete(holder.table, start, end)
        holder.num_computed = end
        return end - start

    def say(self, holder: Holder, token_id: int) -> bool:
        """Sample a token and compute it; False when there is no block for it."""
        if not holder.table.is_validated:
            self.blocks.validate(holder.table)
        is_full = holder.num_computed == len(holder.table.blocks) * SIZE
        if is_full and not self.blocks.grow(holder.table, holder.tokens, holder.num_computed, holder.salt):
            return False
        self.memory[holder.table.blocks[holder.num_computed // SIZE]][holder.num_computed % SIZE] = token_id
        holder.tokens.append(token_id)
        holder.num_computed += 1
        return True

    def release(self, holder: Holder) -> list[int]:
        """End a holder; the blocks that had to be cleared."""
        self.holders.remove(holder)
        needs_zeroing = self.blocks.release(holder.table, holder.tokens, holder.num_computed, holder.salt)
        for block in needs_zeroing:
            self.memory[block] = [0] * SIZE
        return needs_zeroing

    def read(self, holder: Holder) -> list[int]:
        """What the cache holds for the positions that the holder takes for computed."""
        ids = [token_id for block in holder.table.blocks for token_id in self.memory[block]]
        return ids[: holder.num_computed]


class BlocksMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.cache = Cache()

    @rule(tokens=PROMPTS, salt=st.sampled_from(["", "", "s"]), reads_cache=st.sampled_from([True, True, False]))
    def admit(self, tokens: list[int], salt: str, reads_cache: bool) -> None:
        num_available = self.cache.blocks.num_available
        holder = self.cache.admit(tokens, salt, reads_cache=reads_cache)
        if holder is None:
            assert self.cache.blocks.num_available == num_available < -(-len(tokens) // SIZE)

    @precondition(lambda self: self.cache.holders)
    @rule(data=st.data(), num_tokens=st.integers(1, 5))
    def go_on(self, data: st.DataObject, num_tokens: int) -> None:
        holder = data.draw(st.sampled_from(self.cache.holders))
        if holder.num_computed < len(holder.tokens):
            self.cache.compute(holder, num_tokens)
        else:
            self.cache.say(holder, num_tokens)

    @precondition(lambda self: self.cache.holders)
    @rule(data=st.data(), is_finite=st.booleans())
    def end(self, data: st.DataObject, is_finite: bool) -> None:
        holder = data.draw(st.sampled_from(self.cache.holders))
        if not is_finite:
            self.cache.blocks.invalidate(holder.table)
        self.cache.release(holder)

    @invariant()
    def blocks_are_in_order(self) -> None:
        check_blocks(self.cache.blocks, [holder.table for holder in self.cache.holders])

    @invariant()
    def everyone_finds_what_it_takes_for_computed(self) -> None:
        for holder in self.cache.holders:
            assert self.cache.read(holder) == holder.tokens[: holder.num_computed]

    def teardown(self) -> None:
        """No two holders wait for each other."""
        while prefilling := [holder for holder in self.cache.holders if holder.num_computed < len(holder.tokens)]:
            assert sum(self.cache.compute(holder, 3) for holder in prefilling)
            self.everyone_finds_what_it_takes_for_computed()


BlocksMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
test_random_operations = BlocksMachine.TestCase


@pytest.fixture
def cache() -> Cache:
    return Cache()


def ready(cache: Cache, tokens: list[int], salt: str = "") -> Holder:
    """A holder whose prefill is complete and that has sampled a token."""
    holder = cache.admit(tokens, salt)
    assert holder is not None
    cache.compute(holder)
    cache.blocks.validate(holder.table)
    return holder


def test_a_prefix_is_found_while_it_runs_and_after_it_ended(cache: Cache) -> None:
    first = ready(cache, [1, 2, 3, 4, 5])
    second = ready(cache, [1, 2, 3, 4, 9])
    assert first.table.blocks[:2] == second.table.blocks[:2]
    assert first.table.blocks[2] != second.table.blocks[2]
    cache.release(first)
    cache.release(second)

    third = cache.admit([1, 2, 3, 4, 5, 6])

    assert third is not None
    assert cache.blocks.skip(third.table, 0) == 4


def test_a_prompt_that_is_cached_as_a_whole_computes_its_last_block_again(cache: Cache) -> None:
    ready(cache, [1, 2, 3, 4])

    second = cache.admit([1, 2, 3, 4])

    assert second is not None
    assert cache.compute(second) == 2


def test_salts_share_nothing(cache: Cache) -> None:
    cache.release(ready(cache, [1, 2, 3, 4, 5], "mine"))

    assert ready(cache, [1, 2, 3, 4, 5], "yours").table.num_attached == 0
    assert ready(cache, [1, 2, 3, 4, 5], "mine").table.num_attached == 2


def test_output_is_found_by_the_next_turn_of_a_chat(cache: Cache) -> None:
    first = ready(cache, [1, 2, 3])
    for token_id in (4, 5, 6):
        assert cache.say(first, token_id)
    cache.release(first)

    assert ready(cache, [1, 2, 3, 4, 5, 6, 7]).table.num_attached == 3


def test_what_another_is_about_to_compute_is_waited_for(cache: Cache) -> None:
    first, second = cache.admit([1, 2, 3, 4, 5]), cache.admit([1, 2, 3, 4, 6])
    assert first is not None
    assert second is not None

    assert cache.compute(second) == 0
    cache.compute(first, 2)
    assert cache.compute(second) == 0
    cache.compute(first)
    assert cache.compute(second) == 1


def test_what_another_left_half_computed_is_computed_by_those_who_wait_for_it(cache: Cache) -> None:
    first, second, third = (cache.admit([1, 2, 3, 4, 5, 6, last]) for last in (1, 2, 3))
    assert first is not None
    assert second is not None
    assert third is not None
    cache.compute(first, 3)
    cache.release(first)

    assert cache.compute(third, 1) == 1
    assert cache.compute(second) == 0
    assert cache.compute(third) == 4
    assert cache.compute(second) == 1


def test_the_least_recently_used_prefix_goes_first_and_its_end_before_its_beginning(cache: Cache) -> None:
    for first in (1, 2, 3):
        cache.release(ready(cache, [first, 9, 9, 9, 9, 9, 9, 9]))
    cache.release(ready(cache, [1, 9, 9, 9, 9, 9, 9, 9]))
    assert cache.blocks.num_cached == 12

    ready(cache, [5] * 10)

    assert [ready(cache, [first, 9, 9, 9, 9, 9, 9, 9]).table.num_attached for first in (2, 1)] == [2, 3]


def test_what_nobody_vouched_for_is_cleared_and_not_found(cache: Cache) -> None:
    unknown = cache.admit([1, 2, 3, 4, 5])
    assert unknown is not None
    cache.compute(unknown, 4)

    assert len(cache.release(unknown)) == 3
    assert ready(cache, [1, 2, 3, 4, 5]).table.num_attached == 0


def test_blocks_that_were_not_finite_are_lost_to_all_but_those_who_hold_them(cache: Cache) -> None:
    bad = ready(cache, [1, 2, 3, 4, 5])
    neighbour = ready(cache, [1, 2, 3, 4, 6])

    cache.blocks.invalidate(bad.table)

    assert cache.release(bad) == [2]
    assert ready(cache, [1, 2, 3, 4, 7]).table.num_attached == 0
    assert len(cache.release(neighbour)) == 2


def test_a_sequence_that_does_not_fit_takes_nothing(cache: Cache) -> None:
    ready(cache, [1] * 20)

    assert cache.admit([2] * 9) is None
    assert cache.blocks.num_used == 10
    assert not cache.blocks.admit(BlockTable(), [2] * 8, salt="", reads_cache=True, num_spared=1)
    assert cache.admit([2] * 8) is not None
