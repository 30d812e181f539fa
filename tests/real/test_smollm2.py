"""SmolLM2 in float32 says what transformers says: tokens, text and log probabilities, and replays them.

Each run takes a part of 200 prompts. `make test ARGS="tests/real --all-prompts"` takes all of them and asks `generate`
for each, which takes some minutes.
"""

from collections.abc import Callable

import pytest
import torch
from msgspec import structs
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from api.protocol.chat.request import ChatRequest
from api.protocol.completions.request import CompletionRequest
from api.protocol.kinds import prepare
from storage.contract import SamplingParams
from tests.engine.checked import ids_of, run, text_of
from tests.protocol.examples import body
from tests.real.conftest import Real
from tests.real.prompts import BEGINNINGS, CHATS
from workers.engine.engine import Engine
from workers.engine.sequence import SequenceOutput, SequenceRequest

MAX_TOKENS = 12
Outputs = dict[str, list[SequenceOutput]]


def requests(real: Real) -> list[SequenceRequest]:
    """All prompts as the API makes jobs of them, greedy."""
    wires = [ChatRequest.parse(body(messages=chat, temperature=0, max_tokens=MAX_TOKENS)) for chat in CHATS]
    texts = CompletionRequest.parse(body(prompt=BEGINNINGS, temperature=0, max_tokens=MAX_TOKENS))
    prompts = [prompt for wire in [*wires, texts] for prompt in prepare(wire, real.tools, seed=1).spec.prompts]
    sampling = SamplingParams(max_tokens=MAX_TOKENS, temperature=0.0, logprobs=3)
    return [
        SequenceRequest(sequence_id=str(number), prompt=tuple(prompt), sampling=sampling)
        for number, prompt in enumerate(prompts)
    ]


def engine_of(real: Real) -> Engine:
    return Engine(real.loaded.runner, real.loaded.text, real.loaded.limits)


@pytest.fixture(scope="module")
def asked(smollm2: Real, every: tuple[int, int]) -> list[SequenceRequest]:
    """The prompts of this run."""
    return requests(smollm2)[:: every[0]]


@pytest.fixture(scope="module")
def said(smollm2: Real, asked: list[SequenceRequest]) -> Outputs:
    """What the engine says to all of them, many at a time."""
    return run(engine_of(smollm2), *asked)


def test_prompts_are_those_of_transformers(smollm2: Real) -> None:
    tokenizer = smollm2.tokenizer
    chats = [
        tokenizer.apply_chat_template(chat, tokenize=True, add_generation_prompt=True, return_dict=False)
        for chat in CHATS
    ]

    assert [list(one.prompt) for one in requests(smollm2)] == [*chats, *tokenizer(BEGINNINGS)["input_ids"]]


def test_every_token_is_the_likeliest_of_transformers(
    smollm2_model: PreTrainedModel, asked: list[SequenceRequest], said: Outputs
) -> None:
    """Reads each prompt with its answer in one pass: where every token is the likeliest, `generate` says the same."""
    by_length = sorted(asked, key=lambda one: len(one.prompt))
    for batch in (by_length[start : start + 20] for start in range(0, len(asked), 20)):
        answers = [ids_of(said[one.sequence_id]) for one in batch]
        rows = [torch.tensor([*one.prompt, *answer]) for one, answer in zip(batch, answers, strict=True)]
        # Nothing looks ahead, so what fills the rows up behind their ends changes nothing.
        with torch.inference_mode():
            logits = smollm2_model(pad_sequence(rows, batch_first=True), use_cache=False).logits.log_softmax(-1)
        for one, answer, row in zip(batch, answers, logits, strict=True):
            behind = row[len(one.prompt) - 1 :][: len(answer)]
            assert answer == behind.argmax(-1).tolist(), one.sequence_id
            check_logprobs(said[one.sequence_id], behind)


def check_logprobs(got: list[SequenceOutput], expected: Tensor) -> None:
    """Assert that reported log probabilities are the expected ones, [num_tokens, vocab_size]."""
    reported = [one for output in got for one in output.logprobs]
    assert len(reported) == len(expected)
    for one, row in zip(reported, expected, strict=True):
        assert one.logprob == pytest.approx(float(row[one.token_id]), abs=1e-4)
        assert [logprob for _, logprob in one.top] == pytest.approx(row.topk(3).values.tolist(), abs=1e-4)


def test_generate_says_the_same(
    smollm2: Real,
    smollm2_model: PreTrainedModel,
    asked: list[SequenceRequest],
    said: Outputs,
    every: tuple[int, int],
) -> None:
    generate: Callable[..., Tensor] = smollm2_model.generate
    ends = sorted(smollm2.loaded.limits.eos_token_ids)
    for one in asked[:: every[1]]:
        ids = torch.tensor([one.prompt])
        whole = generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=MAX_TOKENS,
            eos_token_id=ends,
            pad_token_id=0,
        )
        answer = whole[0, len(one.prompt) :].tolist()
        assert ids_of(said[one.sequence_id]) == answer
        assert text_of(said[one.sequence_id]) == smollm2.tokenizer.decode(answer, skip_special_tokens=True)


def test_seeds_replay(smollm2: Real) -> None:
    plain = requests(smollm2)[::40]
    sampled = [
        structs.replace(one, sampling=SamplingParams(max_tokens=MAX_TOKENS, temperature=1.0, top_p=0.95, seed=seed))
        for seed, one in enumerate(plain)
    ]

    together = run(engine_of(smollm2), *sampled)

    for one in sampled[:3]:
        alone = run(engine_of(smollm2), one)[one.sequence_id]
        assert (ids_of(alone), text_of(alone)) == (
            ids_of(together[one.sequence_id]),
            text_of(together[one.sequence_id]),
        )
    other = structs.replace(sampled[1], sampling=structs.replace(sampled[1].sampling, seed=99))
    assert ids_of(run(engine_of(smollm2), other)["40"]) != ids_of(together["40"])
