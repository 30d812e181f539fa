import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.errors import SettingInvalid
from workers.engine.memory import plan_cache
from workers.engine.sampling_seed import choice_seed, position_key

SEEDS = st.integers(-(2**63), 2**64 - 1)


@given(st.integers(2, 10_000), st.integers(1, 500), st.integers(1, 64), st.integers(2, 10_000), st.integers(1, 10**8))
def test_a_cache_plan_keeps_its_budget(context: int, per_token: int, rows: int, max_len: int, budget: int) -> None:
    row_bytes = min(context, max_len) * per_token
    if budget < row_bytes:
        with pytest.raises(SettingInvalid, match="kv_budget_bytes"):
            plan_cache(
                context_length=context,
                bytes_per_token=per_token,
                max_running=rows,
                max_len=max_len,
                budget_bytes=budget,
            )
        return

    plan = plan_cache(
        context_length=context, bytes_per_token=per_token, max_running=rows, max_len=max_len, budget_bytes=budget
    )

    assert plan.size_bytes <= budget
    assert plan.max_len == min(context, max_len)
    assert plan.num_rows == rows or plan.size_bytes + row_bytes > budget


@given(SEEDS, st.integers(0, 10_000))
def test_keys_are_pairs_of_signed_32_bit_numbers(seed: int, position: int) -> None:
    assert all(-(2**31) <= key < 2**31 for key in position_key(seed, position))


def test_no_two_seeds_and_positions_share_a_key() -> None:
    keys = {position_key(seed, position) for seed in range(200) for position in range(200)}

    assert len(keys) == 200 * 200


def test_the_noise_of_a_seed_never_changes() -> None:
    """A job that moves to a worker of another release draws the same tokens."""
    assert position_key(7, 11) == (-797100913, -1371401951)
    assert position_key(2**64 - 1, 0) == (-2078994080, -717044987)
    assert choice_seed(7, 0) == 7
    assert choice_seed(7, 1) == 7191089600892374487


def test_choices_have_seeds_of_their_own() -> None:
    seeds = {choice_seed(seed, choice) for seed in range(100) for choice in range(8)}

    assert len(seeds) == 800
    assert all(0 <= seed < 2**64 for seed in seeds)
