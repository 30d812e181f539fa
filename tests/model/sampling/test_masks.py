"""Rows with a packed mask: sampled as if the other tokens had no chance, and reported as without the mask."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from storage.contract import SamplingParams
from tests.model.sampling.asked import Asked, Backend, asked
from workers.constraint.mask_buffer import MaskBuffer
from workers.constraint.row_masks import ForcedToken, allow, clear, forbid, is_clear

VOCAB_SIZE = 1000
NAN, INFINITY = float("nan"), float("inf")

params = st.builds(
    SamplingParams,
    max_tokens=st.just(9),
    seed=st.integers(0, 2**64 - 1),
    temperature=st.sampled_from([0.0, 0.005, 0.5, 1.0, 1.3, 1e38]),
    top_k=st.sampled_from([0, 0, 1, 5, 70, 600, 10**9]),
    top_p=st.sampled_from([1.0, 1.0, 0.9, 0.3, 1e-12]),
    min_p=st.sampled_from([0.0, 0.0, 0.05, 0.9]),
    presence_penalty=st.sampled_from([0.0, 0.0, 1.5, -2.0]),
    frequency_penalty=st.sampled_from([0.0, 0.0, 0.3]),
    repetition_penalty=st.sampled_from([1.0, 1.0, 1.2, 1e300]),
    logit_bias=st.sampled_from([(), (), ((3, 100.0), (999, -100.0)), ((0, 1.5),)]),
)
tokens = st.lists(st.integers(0, VOCAB_SIZE - 1), min_size=1, max_size=30)
# Single tokens at the borders of words and vectors, a few of them, and long runs as inside a string.
allowed = st.one_of(
    st.sampled_from([[0], [31], [32], [63], [64], [999], [992]]),
    st.lists(st.integers(0, VOCAB_SIZE - 1), min_size=1, max_size=40),
    st.tuples(st.integers(0, 900), st.integers(1, 1000)).map(lambda run: [*range(run[0], min(sum(run), VOCAB_SIZE))]),
)


@dataclass(frozen=True)
class Allowed:
    """A mask that allows these tokens."""

    token_ids: Sequence[int]

    def fill(self, words: memoryview, address: int) -> None:
        clear(words)
        allow(words, self.token_ids)


def logits_of(slope: int, *, is_coarse: bool) -> torch.Tensor:
    logits = torch.arange(float(VOCAB_SIZE)).mul(slope).sin() * 8.0
    return logits.bfloat16().float() if is_coarse else logits


@settings(deadline=None)
@given(st.integers(1, 97), st.booleans(), params, tokens, allowed)
def test_a_masked_row_samples_as_if_the_others_were_impossible(
    backend: Backend, slope: int, is_coarse: bool, sampling: SamplingParams, ids: list[int], token_ids: list[int]
) -> None:
    logits = logits_of(slope, is_coarse=is_coarse)
    impossible = torch.full_like(logits, -INFINITY)
    impossible[token_ids] = logits[token_ids]
    request = Asked(sampling=sampling, tokens=ids, num_prompt=len(ids) // 2)

    masked = backend.sample(logits[None], [replace(request, mask=Allowed(token_ids))])

    assert masked.token_ids == backend.sample(impossible[None], [request]).token_ids
    assert masked.token_ids[0] in token_ids


@settings(deadline=None)
@given(st.integers(1, 97), params, allowed)
def test_log_probabilities_are_those_before_the_mask(
    backend: Backend, slope: int, sampling: SamplingParams, token_ids: list[int]
) -> None:
    logits = logits_of(slope, is_coarse=False)[None]
    request = Asked(sampling=structs.replace(sampling, logprobs=5))

    ranked = backend.sample(logits, [replace(request, mask=Allowed(token_ids))]).logprobs[0]

    assert ranked.token_id in token_ids
    assert ranked == backend.rank(logits, [ranked.token_id], 5)[0]


def test_masked_rows_stand_among_others(backend: Backend) -> None:
    logits = torch.stack([logits_of(slope, is_coarse=False) for slope in range(1, 41)])
    plain = [asked(seed=row, sequence_id=str(row), top_p=0.9) for row in range(40)]
    masked = [replace(one, mask=Allowed([row, 500 + row])) if row % 3 == 0 else one for row, one in enumerate(plain)]

    mixed, free = backend.sample(logits, masked).token_ids, backend.sample(logits, plain).token_ids

    assert all(mixed[row] in (row, 500 + row) for row in range(0, 40, 3))
    assert [mixed[row] for row in range(40) if row % 3] == [free[row] for row in range(40) if row % 3]


def test_a_row_without_an_allowed_token_has_none_and_harms_no_other(backend: Backend) -> None:
    rows = [logits_of(3, is_coarse=False).tolist()] * 3
    requests = [asked(seed=1), replace(asked(seed=1), mask=Allowed([])), replace(asked(seed=1), mask=ForcedToken(70))]

    assert backend.sample(rows, requests).token_ids == [backend.sample(rows[:1], requests[:1]).token_ids[0], None, 70]


@pytest.mark.parametrize("fault", [NAN, INFINITY])
def test_a_mask_hides_no_logit_that_is_not_finite(backend: Backend, fault: float) -> None:
    logits = logits_of(3, is_coarse=False)
    logits[7] = fault

    assert backend.sample(logits[None], [replace(asked(), mask=Allowed([1, 2]))]).token_ids == [None]


def test_min_tokens_is_left_to_the_mask(backend: Backend) -> None:
    end = replace(asked(min_tokens=9, temperature=0.0), mask=Allowed([0]))

    assert backend.sample([[1.0, 2.0, 3.0]], [end]).token_ids == [0]


def test_a_masked_batch_is_not_plain(backend: Backend) -> None:
    greedy = asked(temperature=0.0)

    assert not backend.sampler(10).prepare([greedy, replace(greedy, mask=Allowed([1]))]).is_plain


def test_words_of_a_mask_hold_32_tokens_each() -> None:
    buffer = MaskBuffer(70)
    buffer.fill([Allowed([0, 33, 69]), ForcedToken(40), Allowed([])])

    words = buffer.words(3)

    assert buffer.num_words == 3
    assert list(words) == [1, 2, 1 << 5, 0, 1 << 8, 0, 0, 0, 0]
    assert [is_clear(words[place : place + 3]) for place in (0, 3, 6)] == [False, False, True]
    assert forbid(words[:3], [0, 1, 95, 96, -1]) == [0]
    allow(words, [10**6, -1])
    assert list(words) == [0, 2, 1 << 5, 0, 1 << 8, 0, 0, 0, 0]
