from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs
from torch import Tensor

from storage.contract import SamplingParams
from tests.model.sampling.asked import CPU, Asked, Backend, asked
from tests.model.sampling.reference import edited
from workers.engine.runner import Ranked
from workers.model.native.library import Library
from workers.model.sampling.filters import Filters, _edges, _edges_among_few, _edges_by_sorting
from workers.model.sampling.sampled import Vocabulary
from workers.model.sampling.sampler import torch_sampler

VOCAB_SIZE = 1000
NAN, INFINITY = float("nan"), float("inf")
LOGITS = [2.0, 1.5, 1.4, 0.3, 0.2, 0.0, -0.5, -1.0, -1.7, -INFINITY]

params = st.builds(
    SamplingParams,
    max_tokens=st.just(9),
    seed=st.integers(0, 2**64 - 1),
    temperature=st.sampled_from([0.0, 0.005, 0.5, 1.0, 1.3, 1e38]),
    top_k=st.sampled_from([0, 0, 1, 5, 70, 600, 10**9]),
    top_p=st.sampled_from([1.0, 1.0, 0.9, 0.3, 1e-12]),
    min_p=st.sampled_from([0.0, 0.0, 0.05, 0.9999999999]),
    presence_penalty=st.sampled_from([0.0, 0.0, 1.5, -2.0, 1e300]),
    frequency_penalty=st.sampled_from([0.0, 0.0, 0.3, -1e300]),
    repetition_penalty=st.sampled_from([1.0, 1.0, 1.2, 1e-300, 1e300]),
    logit_bias=st.sampled_from([(), (), ((3, 100.0), (999, -100.0)), ((0, 1.5),)]),
    stop_token_ids=st.sampled_from([(), (7, 999), (10**6, -1)]),
    ignore_eos=st.booleans(),
    min_tokens=st.sampled_from([0, 2, 50]),
    logprobs=st.sampled_from([None, None, 0, 3, 20]),
)
tokens = st.lists(st.integers(0, VOCAB_SIZE - 1), min_size=1, max_size=30)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of logits, sometimes peaked, flat, coarse as bf16 or broken."""

    slope: int
    height: float
    is_coarse: bool
    faults: dict[int, float]

    def logits(self) -> Tensor:
        logits = torch.arange(float(VOCAB_SIZE)).mul(self.slope).sin() * self.height
        logits = logits.bfloat16().float() if self.is_coarse else logits
        for token_id, fault in self.faults.items():
            logits[token_id] = fault
        return logits


rows = st.builds(
    Row,
    slope=st.integers(1, 10**6),
    height=st.sampled_from([0.0, 0.1, 1.0, 7.0, 1e38]),
    is_coarse=st.booleans(),
    faults=st.one_of(
        st.just({}),
        st.dictionaries(st.integers(0, VOCAB_SIZE - 1), st.sampled_from([NAN, INFINITY, -INFINITY]), max_size=2),
    ),
)


@st.composite
def requests(sample: st.DrawFn) -> Asked:
    ids = sample(tokens)
    return Asked(sampling=sample(params), tokens=ids, num_prompt=sample(st.integers(1, len(ids))))


@settings(deadline=None)
@given(st.lists(st.tuples(rows, requests()), min_size=1, max_size=8))
def test_a_row_does_not_depend_on_its_neighbours(backend: Backend, batch: list[tuple[Row, Asked]]) -> None:
    logits = torch.stack([row.logits() for row, _ in batch])
    requests = [replace(one, sequence_id=str(place)) for place, (_, one) in enumerate(batch)]

    together = backend.sample(logits, requests)

    for place, request in enumerate(requests):
        alone = backend.sample(logits[place : place + 1], [request])
        assert together.token_ids[place] == alone.token_ids[0]
        assert together.logprobs.get(place) == alone.logprobs.get(0)
        assert (alone.token_ids[0] is None) == (not logits[place].max().isfinite())


@settings(deadline=None)
@given(st.lists(st.tuples(rows, requests()), min_size=1, max_size=8))
def test_the_library_samples_what_torch_samples(library: Library, batch: list[tuple[Row, Asked]]) -> None:
    logits = torch.stack([row.logits() for row, _ in batch])
    requests = [replace(one, sequence_id=str(place)) for place, (_, one) in enumerate(batch)]

    in_library, on_torch = Backend(library).sample(logits, requests), Backend().sample(logits, requests)

    assert in_library.token_ids == on_torch.token_ids
    assert in_library.logprobs.keys() == on_torch.logprobs.keys()
    for row, ranked in in_library.logprobs.items():
        assert reported_ids(ranked) == reported_ids(on_torch.logprobs[row])
        assert reported_logprobs(ranked) == pytest.approx(reported_logprobs(on_torch.logprobs[row]), rel=1e-6, abs=1e-6)


def reported_ids(ranked: Ranked) -> list[int]:
    return [ranked.token_id, *(token_id for token_id, _ in ranked.top)]


def reported_logprobs(ranked: Ranked) -> list[float]:
    return [ranked.logprob, *(logprob for _, logprob in ranked.top)]


@settings(deadline=None)
@given(st.lists(st.tuples(rows, requests()), min_size=1, max_size=4), st.lists(st.booleans(), min_size=4, max_size=4))
def test_the_library_edits_logits_as_torch_does_bit_for_bit(
    library: Library, batch: list[tuple[Row, Asked]], are_pending: list[bool]
) -> None:
    logits = torch.stack([row.logits() for row, _ in batch])
    pending = torch.tensor([request.tokens[-1] for _, request in batch])
    requests = [
        replace(
            one,
            sequence_id=str(place),
            is_pending=are_pending[place],
            sampling=structs.replace(one.sampling, logprobs=None),
        )
        for place, (_, one) in enumerate(batch)
    ]
    edited_by = []
    for backend in (Backend(library), Backend()):
        sampler, mine = backend.sampler(VOCAB_SIZE), logits.clone()
        sampler.sample_prepared(mine, sampler.prepare(requests), pending)
        edited_by.append(mine.view(torch.int32))

    assert torch.equal(*edited_by)


@settings(deadline=None)
@given(rows, requests())
def test_greedy_rows_take_the_likeliest_after_all_edits(backend: Backend, row: Row, request: Asked) -> None:
    logits = row.logits()
    sampling = structs.replace(request.sampling, temperature=0.0, presence_penalty=0.25, frequency_penalty=0.5)
    sampling = structs.replace(sampling, repetition_penalty=2.0, logit_bias=((3, 0.5),), stop_token_ids=(7,))
    request = replace(request, sampling=sampling)

    token_id = backend.sample(logits[None], [request]).token_ids[0]

    if logits.max().isfinite():
        values = edited(logits.tolist(), request)
        assert token_id is not None
        assert values[token_id] >= max(values) - 1e-6 * abs(max(values))
    else:
        assert token_id is None


def test_low_temperatures_are_greedy(backend: Backend) -> None:
    requests = [asked(seed=seed, temperature=0.009) for seed in range(50)]

    assert set(backend.sample([LOGITS] * 50, requests).token_ids) == {0}


def test_rows_that_are_not_finite_have_no_token_and_harm_no_other(backend: Backend) -> None:
    broken = [[*LOGITS[:9], NAN], [INFINITY, *LOGITS[1:]], [-INFINITY] * 10]
    rows = [LOGITS, *broken, [3e38, *LOGITS[1:]]]
    requests = [asked(seed=seed, top_p=0.9, logprobs=2) for seed in range(5)]

    picked = backend.sample(rows, requests)

    assert picked.token_ids[1:4] == [None, None, None]
    assert picked.token_ids[0] == backend.sample([LOGITS], requests[:1]).token_ids[0]
    assert picked.token_ids[4] == 0
    assert set(picked.logprobs) == {0, 4}


def test_a_row_has_no_token_when_every_one_of_them_is_masked(backend: Backend) -> None:
    masked = asked(temperature=0.0, min_tokens=1, stop_token_ids=(1,))

    assert backend.sample([[1.0, 2.0]], [masked]).token_ids == [None]


def test_a_mask_hides_no_logit_that_is_not_finite(backend: Backend) -> None:
    masked = asked(temperature=0.0, min_tokens=1)

    assert backend.sample([[NAN, 1.0, 2.0], [INFINITY, 1.0, 2.0]], [masked, masked]).token_ids == [None, None]


@pytest.mark.parametrize(
    ("sampling", "seed", "position", "token_id"),
    [
        ({}, 7, 3, 45),
        ({}, 1099511627776, 900, 436),
        ({"temperature": 0.7}, 8, 3, 1018),
        ({"temperature": 0.7}, 1099511627777, 901, 1280),
        ({"top_p": 0.9}, 9, 3, 479),
        ({"top_p": 0.9}, 1099511627778, 902, 1064),
        ({"top_p": 0.5, "temperature": 1.5}, 10, 3, 741),
        ({"top_p": 0.5, "temperature": 1.5}, 1099511627779, 903, 1134),
        ({"top_k": 40}, 11, 3, 796),
        ({"top_k": 40}, 1099511627780, 904, 1647),
        ({"top_k": 40, "top_p": 0.8}, 12, 3, 1728),
        ({"top_k": 40, "top_p": 0.8}, 1099511627781, 905, 1042),
        ({"top_k": 300, "top_p": 0.95}, 13, 3, 1307),
        ({"top_k": 300, "top_p": 0.95}, 1099511627782, 906, 1214),
        ({"top_p": 0.1}, 14, 3, 863),
        ({"top_p": 0.1}, 1099511627783, 907, 1860),
    ],
)
def test_a_seed_samples_what_it_always_sampled(
    backend: Backend, sampling: dict[str, float], seed: int, position: int, token_id: int
) -> None:
    logits = torch.arange(2000.0).mul(seed % 97 + 1).sin().mul(3)

    picked = backend.sample(logits[None], [asked(seed=seed, tokens=[1] * position, **sampling)])

    assert picked.token_ids == [token_id]


def test_rows_may_lie_further_apart_than_they_are_long(backend: Backend) -> None:
    requests = [asked(seed=seed, top_p=0.9, repetition_penalty=1.5, sequence_id=str(seed)) for seed in range(4)]
    logits = torch.arange(4 * 48.0).sin().view(4, 48)

    strided = backend.sampler(40).sample(logits.clone()[:, :40], requests)

    assert strided == backend.sample(logits[:, :40].contiguous(), requests)


def test_bfloat16_logits_are_sampled_from_as_float32_ones(backend: Backend) -> None:
    logits = torch.arange(40.0).sin().bfloat16()[None]
    request = asked(seed=5, top_p=0.8)

    assert backend.sample(logits, [request]) == backend.sample(logits.float(), [request])


def test_a_plain_greedy_batch_needs_nothing_but_the_likeliest(backend: Backend) -> None:
    prepared = backend.sampler(10).prepare([asked(temperature=0.0), asked(temperature=1.0, top_k=1, top_p=0.5)])

    assert prepared.is_plain
    assert not backend.sampler(10).prepare([asked(temperature=0.0, logprobs=0)]).is_plain


def test_filters_keep_a_growing_part_of_one_order() -> None:
    distances = torch.arange(200.0).mul(7).sin().sub(1)[None]
    weights = distances.exp()

    kept = [
        Filters.of([SamplingParams(max_tokens=1, top_p=top_p)], 200, CPU).kept(distances, weights)
        for top_p in (0.01, 0.2, 0.5, 0.9, 0.99)
    ]

    assert all(bool((fewer <= more).all()) for fewer, more in pairwise(kept))
    assert [int(one.sum()) for one in kept] == sorted({int(one.sum()) for one in kept})


@pytest.mark.parametrize("slope", [0.1, 1.0, 5.0])
def test_a_search_among_few_tokens_or_sorted_ones_finds_what_one_by_bits_finds(slope: float) -> None:
    chooser = torch.Generator().manual_seed(4)
    far = torch.rand(6, 3000, generator=chooser).mul(slope * 10).bfloat16().float().view(torch.int32)
    weights = (far.view(torch.float32).neg().exp().double() * 2**40).long()
    for share in (0.001, 0.1, 0.5, 0.9, 2.0):
        limits = (weights.sum(-1, keepdim=True) * share).long()

        few, expected = _edges_among_few(far, weights, limits), _edges(far, weights, limits)

        assert few is None or torch.equal(few, expected)
        assert torch.equal(_edges_by_sorting(far, weights, limits), expected)
    assert _edges_among_few(far, weights, torch.ones_like(limits)) is not None


def test_a_sample_asks_the_device_nothing() -> None:
    # Tensors of this device have no values: whoever looks at one fails.
    nowhere = torch.device("meta")
    kinds: list[dict[str, object]] = [
        {"temperature": 0.0},
        {"temperature": 0.7},
        {"top_k": 40, "top_p": 0.9, "min_p": 0.1},
        {"repetition_penalty": 1.2, "presence_penalty": 0.5, "logprobs": 3},
        {"logit_bias": ((3, 1.0),), "min_tokens": 9, "top_p": 0.5, "logprobs": 0},
    ]
    requests = [
        replace(asked(sequence_id=f"{place} {is_pending}", **kind), is_pending=is_pending)
        for is_pending in (False, True)
        for place, kind in enumerate(kinds)
    ]
    blind = torch_sampler(Vocabulary(size=VOCAB_SIZE, eos_token_ids=[0]), nowhere)
    logits = torch.empty(len(requests), VOCAB_SIZE, device=nowhere)

    pending = torch.empty(len(requests), dtype=torch.int64, device=nowhere)
    picked = blind.sample_prepared(logits, blind.prepare(requests), pending)

    assert picked.token_ids.device == picked.packed.device == nowhere
