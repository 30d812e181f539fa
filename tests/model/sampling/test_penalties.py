import random

import pytest
import torch
from msgspec import structs
from torch import Tensor

from storage.contract import SamplingParams
from tests.model.sampling.asked import Asked, Backend, asked
from workers.model.sampling.counts import CountTables, TokenCounts
from workers.model.sampling.logit_edits import penalised
from workers.model.sampling.sampler import Sampler

VOCAB_SIZE = 60
PENALTIES = {"presence_penalty": 0.8, "frequency_penalty": 0.6, "repetition_penalty": 1.4}


def logits_at(step: int) -> Tensor:
    """Logits of a made-up model that likes to repeat itself."""
    return torch.arange(float(VOCAB_SIZE)).mul(step % 5 + 1).sin().mul(2)[None]


def written(sampler: Sampler, prompt: list[int], num_tokens: int, **sampling: object) -> list[int]:
    """What a sequence becomes, one sample after another."""
    tokens = list(prompt)
    for step in range(num_tokens):
        request = asked(seed=3, tokens=tokens, num_prompt=len(prompt), **sampling)
        token_id = sampler.sample(logits_at(step), [request]).token_ids[0]
        assert token_id is not None
        tokens.append(token_id)
    return tokens


def test_counts_kept_from_step_to_step_are_those_of_all_tokens(backend: Backend) -> None:
    kept = backend.sampler(VOCAB_SIZE)
    tokens = written(kept, [4, 5, 4], 80, **PENALTIES)

    for step in range(80):
        request = asked(seed=3, tokens=tokens[: 3 + step], **PENALTIES)
        assert backend.sample(logits_at(step), [request]).token_ids == [tokens[3 + step]]


def test_penalties_spread_the_tokens(backend: Backend) -> None:
    plain = written(backend.sampler(VOCAB_SIZE), [4], 80, temperature=0.0)
    spread = written(backend.sampler(VOCAB_SIZE), [4], 80, temperature=0.0, **PENALTIES)

    assert len(set(spread)) > 3 * len(set(plain))


def test_a_sequence_that_went_back_is_counted_anew(backend: Backend) -> None:
    used = backend.sampler(VOCAB_SIZE)
    tokens = written(used, [4, 5, 4], 40, **PENALTIES)

    for length in (20, 19, 19, 21, 5, 43, 6, 7):
        request = asked(seed=3, tokens=tokens[:length], **PENALTIES)
        assert used.sample(logits_at(length - 3), [request]) == backend.sample(logits_at(length - 3), [request])


def test_another_sequence_of_the_same_name_is_counted_anew(backend: Backend) -> None:
    used = backend.sampler(VOCAB_SIZE)
    used.sample(logits_at(0), [asked(tokens=[7, 7, 7], **PENALTIES)])

    for other in (
        asked(tokens=[1, 2, 3, 4], **PENALTIES),
        asked(tokens=[7, 7, 7, 4], num_prompt=2, **PENALTIES),
        asked(tokens=[1, 2, 3], num_prompt=1, presence_penalty=2.0),
    ):
        assert used.sample(logits_at(1), [other]) == backend.sample(logits_at(1), [other])


@pytest.mark.parametrize("sampling", [PENALTIES, {"presence_penalty": 1.0}, {**PENALTIES, "min_tokens": 30}])
def test_a_token_that_the_host_does_not_know_yet_counts(backend: Backend, sampling: dict[str, object]) -> None:
    chooser = random.Random(5)
    for check_ids in range(40):
        tokens = [chooser.randrange(8) for _ in range(chooser.randint(4, 34))]
        known = [asked(seed=check_ids, tokens=tokens, **sampling), asked(seed=1, **PENALTIES, sequence_id="t")]
        ahead = Asked(sampling=known[0].sampling, tokens=tokens[:-1], is_pending=True)
        logits = logits_at(check_ids).repeat(2, 1)

        one_ahead = backend.sampler(VOCAB_SIZE)
        pending = torch.tensor([tokens[-1], 59])
        prepared = one_ahead.prepare([ahead, known[1]])
        picked = one_ahead.results(one_ahead.sample_prepared(logits.clone(), prepared, pending))

        assert picked == backend.sample(logits, known)


def test_drawing_one_step_ahead_writes_the_same_text(backend: Backend) -> None:
    prompt, ahead_of_host = [4, 5], backend.sampler(VOCAB_SIZE)
    expected = written(backend.sampler(VOCAB_SIZE), prompt, 30, **PENALTIES, min_tokens=12)
    params = asked(seed=3, **PENALTIES, min_tokens=12).sampling

    tokens = list(prompt)
    first = Asked(sampling=params, tokens=tokens, num_prompt=2)
    under_way = ahead_of_host.sample_prepared(logits_at(0), ahead_of_host.prepare([first]))
    for step in range(1, 30):
        ahead = Asked(sampling=params, tokens=tokens, num_prompt=2, is_pending=True)
        following = ahead_of_host.sample_prepared(logits_at(step), ahead_of_host.prepare([ahead]), under_way.token_ids)
        tokens.extend(one for one in ahead_of_host.results(under_way).token_ids if one is not None)
        under_way = following

    assert tokens == expected[:-1]


def test_only_repetition_counts_the_prompt(backend: Backend) -> None:
    logits = torch.tensor([[1.0, 1.1]])

    def picked(num_prompt: int, **penalty: float) -> int | None:
        request = asked(tokens=[1, 1], num_prompt=num_prompt, temperature=0.0, **penalty)
        return backend.sample(logits, [request]).token_ids[0]

    assert picked(2, presence_penalty=2.0) == picked(2, frequency_penalty=2.0) == 1
    assert picked(1, presence_penalty=2.0) == picked(1, frequency_penalty=2.0) == 0
    assert picked(2, repetition_penalty=2.0) == 0


def test_penalised_logits_that_would_overflow_stay_finite_and_masked_ones_masked() -> None:
    logits = torch.tensor([3e38, -3e38, 1.0, 0.0, float("-inf")])
    for rates in ((1e-30, 0.0, 0.0), (1e30, 1e30, 1e30), (1e30, 1e30, -1e30), (1e-30, -1e30, -1e30)):
        values = penalised(logits, torch.tensor([9, 9, 9, 9, 9]), torch.tensor(rates)[:, None].expand(3, 5))

        assert values[:4].isfinite().all()
        assert values[4] == float("-inf")


def test_tables_of_sequences_that_stay_away_are_dropped() -> None:
    tables = CountTables()
    request = asked(**PENALTIES)
    for step in range(1000):
        tables.begin_step()
        tables.table(asked(sequence_id=str(step), **PENALTIES))
        tables.table(request)

    assert len(tables) <= 130
    tables.forget("s")
    tables.forget("never seen")
    assert len(tables) <= 129


def test_requests_without_penalties_leave_nothing_behind(backend: Backend) -> None:
    used = backend.sampler(VOCAB_SIZE)
    request = asked(logit_bias=((1, 2.0),), min_tokens=5)

    used.sample(logits_at(0), [request])

    assert len(used._planner.tables) == 0


def test_a_table_takes_random_tokens_as_a_counter_does() -> None:
    chooser = random.Random(1)
    tokens = [chooser.randrange(9) for _ in range(200)]
    table = TokenCounts(tokens[:20], num_prompt=15, with_prompt=True)
    for length in range(20, 201):
        assert table.follows(tokens[:length], num_prompt=15, with_prompt=True)
        table.take(tokens[:length])
        table.take(tokens[:length])

    assert dict(zip(table.ids, table.counts, strict=True)) == {
        token_id: tokens[15:].count(token_id) for token_id in set(tokens)
    }


def test_bias_ids_are_those_of_their_own_row(backend: Backend) -> None:
    logits = torch.zeros(3, 5)
    bias = [((4, 50.0), (1, 10.0)), (), ((2, 50.0),)]
    greedy = SamplingParams(max_tokens=1, temperature=0.0)

    requests = [Asked(sampling=structs.replace(greedy, logit_bias=one)) for one in bias]

    assert backend.sample(logits, requests).token_ids == [4, 0, 2]
