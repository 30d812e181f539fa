import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.model.sampling.asked import Backend, asked
from workers.model.sampling.token_logprobs import NEVER, pack_ranked, unpack_ranked

LOGITS = torch.arange(50.0).mul(3).sin().mul(4)


def test_they_are_the_models_own_whatever_was_sampled_from(backend: Backend) -> None:
    expected = LOGITS.double().log_softmax(-1)
    request = asked(
        seed=1, temperature=1.9, logit_bias=((30, 99.0),), presence_penalty=2.0, repetition_penalty=5.0, logprobs=5
    )

    picked = backend.sample(LOGITS[None], [request])

    ranked = picked.logprobs[0]
    assert ranked.token_id == picked.token_ids[0] == 30
    assert ranked.logprob == pytest.approx(float(expected[30]), abs=1e-5)
    likeliest = expected.topk(5)
    assert [token_id for token_id, _ in ranked.top] == likeliest.indices.tolist()
    assert [logprob for _, logprob in ranked.top] == pytest.approx(likeliest.values.tolist(), abs=1e-5)


def test_each_row_tells_as_many_as_it_asked_for(backend: Backend) -> None:
    requests = [asked(temperature=0.0, logprobs=count) for count in (None, 0, 20, 3, None)]

    picked = backend.sample(LOGITS.repeat(5, 1), requests)

    assert {row: len(ranked.top) for row, ranked in picked.logprobs.items()} == {1: 0, 2: 20, 3: 3}
    assert len({ranked.logprob for ranked in picked.logprobs.values()}) == 1


def test_a_vocabulary_smaller_than_the_number_asked_for_is_reported_whole(backend: Backend) -> None:
    ranked = backend.sample(LOGITS[None, :7], [asked(logprobs=20)]).logprobs[0]

    assert sum(math.exp(logprob) for _, logprob in ranked.top) == pytest.approx(1.0, abs=1e-5)
    assert len(ranked.top) == 7


@settings(deadline=None)
@given(st.lists(st.floats(-40, 40, width=32), min_size=2, max_size=30), st.integers(0, 20), st.integers(0, 29))
def test_they_are_ordered_and_sum_to_at_most_one(
    backend: Backend, logits: list[float], num_top: int, target: int
) -> None:
    token_id = target % len(logits)

    ranked = backend.rank(torch.tensor([logits]), [token_id], num_top)[0]

    logprobs = [logprob for _, logprob in ranked.top]
    assert logprobs == sorted(logprobs, reverse=True)
    assert len({one for one, _ in ranked.top}) == len(ranked.top) == min(num_top, len(logits))
    assert sum(map(math.exp, logprobs)) <= 1 + 1e-5
    if logprobs:
        assert ranked.logprob <= logprobs[0]
        assert ranked.logprob >= logprobs[-1] or token_id not in [one for one, _ in ranked.top]


def test_prompt_positions_are_ranked_each_by_its_own_logits(backend: Backend) -> None:
    logits = torch.arange(3 * 50.0).mul(5).cos().view(3, 50)
    expected = logits.double().log_softmax(-1)

    ranked = backend.rank(logits, [4, 49, 0], 2)

    assert [one.token_id for one in ranked] == [4, 49, 0]
    assert [one.logprob for one in ranked] == pytest.approx(
        [float(expected[place, token_id]) for place, token_id in enumerate((4, 49, 0))], abs=1e-5
    )
    assert [one.top[0][0] for one in ranked] == expected.argmax(-1).tolist()
    assert backend.rank(logits[:0], [], 2) == []


def test_many_positions_of_a_large_vocabulary_rank_as_each_alone(backend: Backend) -> None:
    logits = torch.arange(9 * 200_000.0).mul(0.37).sin().view(9, 200_000)

    ranked = backend.rank(logits, list(range(9)), 3)

    assert ranked == [backend.rank(logits[place : place + 1], [place], 3)[0] for place in range(9)]


def test_what_cannot_come_has_a_finite_log_probability(backend: Backend) -> None:
    logits = torch.tensor([[0.0, float("-inf"), 1.0], [float("nan"), 0.0, 0.0]])

    ranked = backend.rank(logits, [1, 1], 3)

    assert ranked[0].logprob == NEVER
    assert ranked[0].top[-1] == (1, NEVER)
    assert all(logprob == NEVER for _, logprob in ranked[1].top)


def test_of_equal_logits_the_lower_ids_come_first(backend: Backend) -> None:
    logits = torch.zeros(1, 3000)
    logits[0, 1234] = 1.0
    logits[0, 7] = -0.0

    for count in (1, 2, 3, 20):
        top = backend.rank(logits, [5], count)[0].top

        assert [token_id for token_id, _ in top] == [1234, *range(count - 1)]


@pytest.mark.parametrize("seed", range(8))
def test_a_row_that_is_no_number_does_not_change_which_of_equals_its_neighbour_tells(seed: int) -> None:
    broken = torch.linspace(0.0, 1.0, 400)
    broken[0] = float("nan")
    # One more at the border than are reported: as many as the broken row lacks.
    equal = torch.zeros(400)
    ids = torch.randperm(400, generator=torch.Generator().manual_seed(seed))[:21]
    equal[ids] = 1.0

    packed = pack_ranked(torch.stack([broken, equal]), ids[:2], 20)

    assert [token_id for token_id, _ in unpack_ranked(packed, [20, 20])[1].top] == sorted(ids.tolist())[:20]
