import math
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from storage.contract import SamplingParams
from workers.engine.runner import Chunk
from workers.engine.sampling_seed import position_key
from workers.model import sampler
from workers.model.noise import exponential_noise

LOGITS = [2.0, 1.5, 1.4, 0.3, 0.2, 0.0, -0.5, -1.0, -1.7, float("-inf")]
NUM_DRAWS = 20_000


def chunk(seed: int = 0, position: int = 5, **sampling: float) -> Chunk:
    """A chunk whose next token is the one at `position`."""
    params = SamplingParams(max_tokens=1, seed=seed, **sampling)  # type: ignore[arg-type]  # top_k is whole
    return Chunk(sequence_id="s", row=0, tokens=[1] * position, start=position - 1, end=position, sampling=params)


def drawn(logits: list[float], num_draws: int, **sampling: float) -> Counter[int | None]:
    """How often each token comes, over seeds."""
    counts: Counter[int | None] = Counter()
    for first in range(0, num_draws, 1000):
        chunks = [chunk(seed=seed, **sampling) for seed in range(first, first + 1000)]
        counts.update(sampler.draw(torch.tensor(logits).repeat(1000, 1), chunks))
    return counts


def expected_probs(logits: list[float], temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> list[float]:
    """The slow and obvious way: softmax, the k likeliest, then the fewest of these that hold top_p of their mass."""
    weights = [math.exp((logit - max(logits)) / temperature) for logit in logits]
    order = sorted(range(len(logits)), key=lambda token_id: -weights[token_id])[: top_k or None]
    total = sum(weights[token_id] for token_id in order)
    kept: list[int] = []
    for token_id in order:
        if top_p < 1.0 and sum(weights[one] for one in kept) / total >= top_p:
            break
        kept.append(token_id)
    mass = sum(weights[token_id] for token_id in kept)
    return [weights[token_id] / mass if token_id in kept else 0.0 for token_id in range(len(logits))]


def assert_distributed(counts: Counter[int | None], probs: list[float]) -> None:
    """Pearson's chi-square, at a bound that a right sampler passes with all but 1e-6 of all sets of seeds."""
    num_draws = sum(counts.values())
    assert all(counts[token_id] == 0 for token_id, prob in enumerate(probs) if prob == 0.0)
    seen = [(counts[token_id], prob * num_draws) for token_id, prob in enumerate(probs) if prob > 0.0]
    assert sum(count for count, _ in seen) == num_draws
    statistic = sum((count - mean) ** 2 / mean for count, mean in seen)
    freedom = len(seen) - 1
    # Wilson and Hilferty's approximation of the chi-square quantile.
    bound = freedom * (1 - 2 / (9 * freedom) + 4.75 * math.sqrt(2 / (9 * freedom))) ** 3 if freedom else 1e-9
    assert statistic <= bound


@pytest.mark.parametrize(
    "sampling",
    [
        {},
        {"temperature": 0.5},
        {"temperature": 2.0},
        {"top_k": 1},
        {"top_k": 4},
        {"top_k": 100},
        {"top_p": 0.8},
        {"top_p": 0.01},
        {"top_p": 0.999},
        {"temperature": 1.5, "top_k": 6, "top_p": 0.7},
    ],
)
def test_tokens_come_as_often_as_their_probability(sampling: dict[str, float]) -> None:
    probs = expected_probs(LOGITS, **sampling)  # type: ignore[arg-type]  # top_k is whole

    assert_distributed(drawn(LOGITS, NUM_DRAWS, **sampling), probs)


@pytest.mark.parametrize("sampling", [{"top_p": 0.9}, {"top_k": 700}, {"top_k": 900, "top_p": 0.95}, {}])
def test_a_flat_row_is_filtered_over_the_whole_vocabulary(sampling: dict[str, float]) -> None:
    logits = [math.cos(token_id) for token_id in range(1500)]
    probs = expected_probs(logits, **sampling)  # type: ignore[arg-type]  # top_k is whole
    counts = drawn(logits, NUM_DRAWS, **sampling)

    assert all(probs[token_id] > 0 for token_id in counts if token_id is not None)
    # Groups of fifty tokens are large enough for the chi-square.
    groups = Counter({group: sum(counts[one] for one in range(group * 50, group * 50 + 50)) for group in range(30)})
    assert_distributed(groups, [sum(probs[group * 50 : group * 50 + 50]) for group in range(30)])


@given(
    st.lists(
        st.tuples(
            st.integers(0, 99),
            st.sampled_from([0.0, 0.5, 1.3]),
            st.sampled_from([0, 5, 70, 600]),
            st.sampled_from([1.0, 0.9]),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_a_token_does_not_depend_on_its_neighbours(rows: list[tuple[int, float, int, float]]) -> None:
    logits = torch.stack([torch.arange(1000.0).mul(seed + 1).sin() * (1 + seed % 7) for seed, *_ in rows])
    chunks = [chunk(seed=seed, temperature=heat, top_k=top_k, top_p=top_p) for seed, heat, top_k, top_p in rows]

    together = sampler.draw(logits, chunks)

    assert together == [sampler.draw(logits[i : i + 1], [chunks[i]])[0] for i in range(len(rows))]


def test_low_temperatures_are_greedy() -> None:
    assert set(drawn(LOGITS, 1000, temperature=0.0)) == {0}
    assert set(drawn(LOGITS, 1000, temperature=0.009)) == {0}


def test_rows_that_are_not_finite_have_no_token_and_harm_no_other() -> None:
    rows = [LOGITS, [*LOGITS[:9], float("nan")], [float("inf"), *LOGITS[1:]], [float("-inf")] * 10, [3e38, *LOGITS[1:]]]
    chunks = [chunk(seed=i, top_p=0.9) for i in range(5)]

    tokens = sampler.draw(torch.tensor(rows), chunks)

    assert tokens[1:4] == [None, None, None]
    assert tokens[0] == sampler.draw(torch.tensor([LOGITS]), chunks[:1])[0]
    assert tokens[4] == 0


def noise(num_seeds: int, num_tokens: int) -> Tensor:
    keys = torch.tensor([position_key(seed, 7) for seed in range(num_seeds)], dtype=torch.int32)
    return exponential_noise(keys, torch.arange(num_tokens)[None])


def test_noise_is_exponential_and_never_zero() -> None:
    values = noise(500, 2000)
    ordered = (-(-values.flatten().double()).expm1()).sort().values
    distance = (ordered - torch.linspace(0, 1, len(ordered), dtype=torch.float64)).abs().max()

    assert values.min() > 0
    assert values.isfinite().all()
    # Kolmogorov and Smirnov's bound at 1e-6.
    assert distance < 2.7 / math.sqrt(len(ordered))


def test_noise_of_neighbouring_seeds_positions_and_tokens_is_independent() -> None:
    values = noise(1000, 1000)
    uniform = -(-values).expm1()
    for other in (uniform.roll(1, 0), uniform.roll(1, 1)):
        assert abs(float(torch.corrcoef(torch.stack([uniform.flatten(), other.flatten()]))[0, 1])) < 0.005


def test_the_largest_hash_does_not_give_zero_noise() -> None:
    keys = torch.zeros(1, 2, dtype=torch.int32)
    values = torch.cat([exponential_noise(keys + i, torch.arange(2**20)[None]).flatten() for i in range(12)])

    assert values.min() > 0
