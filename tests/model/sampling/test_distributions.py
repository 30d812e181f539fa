import math
from collections import Counter

import pytest
import torch
from msgspec import structs

from tests.model.sampling.asked import Asked, Backend, asked
from tests.model.sampling.reference import assert_distributed, probabilities

LOGITS = [0.5, 2.0, 1.5, 1.4, 0.3, 0.2, 0.0, -0.5, -1.0, -1.7, float("-inf"), 1.5]
NUM_SAMPLES = 20_000
# Ids 1 and 3 were said already, 3 twice; 5 stands in the prompt.
TOKENS = [5, 5, 8, 1, 3, 3]


def picked(backend: Backend, logits: list[float], request: Asked, num_samples: int = NUM_SAMPLES) -> Counter[int]:
    """How often each token comes, over seeds."""
    params = request.sampling
    requests = [
        Asked(
            sampling=structs.replace(params, seed=seed),
            tokens=request.tokens,
            num_prompt=request.num_prompt,
            sequence_id=request.sequence_id,
        )
        for seed in range(num_samples)
    ]
    token_ids = backend.sample(torch.tensor(logits).repeat(num_samples, 1), requests).token_ids
    assert None not in token_ids
    return Counter(token_id for token_id in token_ids if token_id is not None)


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
        {"top_p": 1e-9},
        {"top_p": 0.999},
        {"min_p": 0.2},
        {"min_p": 0.999999},
        {"temperature": 1.5, "top_k": 6, "top_p": 0.7},
        {"temperature": 1.5, "top_k": 8, "top_p": 0.9, "min_p": 0.3},
        {"presence_penalty": 1.5},
        {"frequency_penalty": 0.7},
        {"frequency_penalty": -0.4, "presence_penalty": -0.2},
        {"repetition_penalty": 1.8},
        {"repetition_penalty": 0.6},
        {"logit_bias": ((4, 1.5), (1, -100.0), (10, 100.0))},
        {"min_tokens": 4, "stop_token_ids": (2,)},
        {"min_tokens": 4, "stop_token_ids": (2,), "ignore_eos": True},
        {"min_tokens": 3, "stop_token_ids": (2,)},
        {
            "temperature": 0.8,
            "top_p": 0.95,
            "top_k": 9,
            "min_p": 0.02,
            "repetition_penalty": 1.2,
            "presence_penalty": 0.4,
            "frequency_penalty": 0.3,
            "logit_bias": ((6, 2.0),),
            "min_tokens": 9,
        },
    ],
    ids=str,
)
def test_tokens_come_as_often_as_their_probability(backend: Backend, sampling: dict[str, object]) -> None:
    request = asked(tokens=TOKENS, num_prompt=3, **sampling)

    assert_distributed(picked(backend, LOGITS, request), probabilities(LOGITS, request))


@pytest.mark.parametrize(
    "sampling",
    [{"top_p": 0.9}, {"top_k": 700}, {"top_k": 900, "top_p": 0.95}, {"min_p": 0.3}, {"top_k": 40, "top_p": 0.5}, {}],
    ids=str,
)
def test_a_flat_row_is_filtered_over_the_whole_vocabulary(backend: Backend, sampling: dict[str, object]) -> None:
    logits = [math.cos(token_id) for token_id in range(1000)]
    request = asked(**sampling)
    probs = probabilities(logits, request)

    counts = picked(backend, logits, request)

    assert all(probs[token_id] > 0 for token_id in counts)
    # Groups of fifty tokens are large enough for the chi-square.
    groups = Counter({group: sum(counts[one] for one in range(group * 50, group * 50 + 50)) for group in range(20)})
    assert_distributed(groups, [sum(probs[group * 50 : group * 50 + 50]) for group in range(20)])


def test_of_tokens_that_are_equally_likely_the_filters_keep_the_first(backend: Backend) -> None:
    flat = [0.0] * 8

    assert set(picked(backend, flat, asked(top_k=3), 500)) == {0, 1, 2}
    assert set(picked(backend, flat, asked(top_p=0.5), 500)) == {0, 1, 2, 3}
    assert set(picked(backend, flat, asked(top_k=4, top_p=0.5), 500)) == {0, 1}
    assert set(picked(backend, flat, asked(min_p=0.99), 500)) == set(range(8))
