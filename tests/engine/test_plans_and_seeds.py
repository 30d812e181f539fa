import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.errors import SettingInvalid
from workers.engine.memory import BLOCK_SIZE, CachePlan, blocks_of, plan_cache
from workers.engine.sampling_seed import choice_seed, position_key
from workers.engine.step_limits import EngineLimits

SEEDS = st.integers(-(2**63), 2**64 - 1)


@given(st.integers(2, 10_000), st.integers(1, 5000), st.integers(1, 64), st.integers(2, 10_000), st.integers(1, 10**8))
def test_a_cache_plan_keeps_its_budget(context: int, per_block: int, running: int, max_len: int, budget: int) -> None:
    def plan() -> CachePlan:
        return plan_cache(
            context_length=context,
            bytes_per_block=per_block,
            max_running=running,
            max_len=max_len,
            budget_bytes=budget,
        )

    blocks_each = blocks_of(min(context, max_len), BLOCK_SIZE)
    if budget < blocks_each * per_block:
        with pytest.raises(SettingInvalid, match="kv_budget_bytes"):
            plan()
        return

    made = plan()

    assert made.size_bytes <= budget
    assert made.max_len == min(context, max_len)
    assert made.num_blocks == running * blocks_each or made.size_bytes + per_block > budget
    assert made.num_blocks >= blocks_each


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_batch_tokens": 7}, "max_batch_tokens"),
        ({"max_prefill_tokens": 0}, "max_prefill_tokens"),
        ({"max_running": 0}, "1 sequence"),
        ({"block_size": 3}, "power of two"),
        ({"num_blocks": 4}, "do not hold one sequence of 10"),
    ],
)
def test_limits_under_which_a_sequence_would_never_run_are_refused(changes: dict[str, int], message: str) -> None:
    measures = {"max_running": 8, "max_len": 10, "num_blocks": 5, "block_size": 2, "max_batch_tokens": 8}

    EngineLimits(**measures, vocab_size=10)  # type: ignore[arg-type]  # by name
    with pytest.raises(SettingInvalid, match=message):
        EngineLimits(**(measures | changes), vocab_size=10)  # type: ignore[arg-type]  # by name


@given(SEEDS, st.integers(0, 10_000))
def test_keys_are_pairs_of_signed_32_bit_numbers(seed: int, position: int) -> None:
    assert all(-(2**31) <= key < 2**31 for key in position_key(seed, position))


def test_no_two_seeds_and_positions_share_a_key() -> None:
    keys = {position_key(seed, position) for seed in range(200) for position in range(200)}

    assert len(keys) == 200 * 200


def test_the_noise_of_a_seed_never_changes() -> None:
    """A job that moves to a worker of another release samples the same tokens."""
    assert position_key(7, 11) == (-797100913, -1371401951)
    assert position_key(2**64 - 1, 0) == (-2078994080, -717044987)
    assert choice_seed(7, 0) == 7
    assert choice_seed(7, 1) == 7191089600892374487


def test_choices_have_seeds_of_their_own() -> None:
    seeds = {choice_seed(seed, choice) for seed in range(100) for choice in range(8)}

    assert len(seeds) == 800
    assert all(0 <= seed < 2**64 for seed in seeds)
