"""What transformers has a counterpart for, on a model: each feature in one batch with all others and plain ones."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from storage.contract import FinishReason, SamplingParams
from tests.engine.checked import ids_of, run, said, text_of
from tests.model.conftest import prompt
from tests.model.tiny import END_OF_TURN
from workers.engine.engine import Engine
from workers.engine.sequence import SequenceRequest
from workers.model.load import LoadedModel

MAX_TOKENS = 16
# What `generate` is reported for what the request is reported.
COUNTERPARTS: dict[str, tuple[dict[str, object], dict[str, object]]] = {
    "plain": ({}, {}),
    "repetition_penalty": ({"repetition_penalty": 1.4}, {"repetition_penalty": 1.4}),
    "banned": (
        {"logit_bias": tuple((token_id, -100.0) for token_id in range(0, 400, 2))},
        {"bad_words_ids": [[token_id] for token_id in range(0, 400, 2)]},
    ),
    "bias": (
        {"logit_bias": ((7, 3.0), (9, -2.0))},
        {"sequence_bias": [[[7], 3.0], [[9], -2.0]]},
    ),
    "min_tokens": ({"min_tokens": 9, "logit_bias": ((3, 6.0),)}, {"min_new_tokens": 9, "sequence_bias": [[[3], 6.0]]}),
    "stop_token_ids": ({"stop_token_ids": tuple(range(0, 400, 5))}, {"eos_token_id": [3, *range(0, 400, 5)]}),
    "ignore_eos": (
        {"ignore_eos": True, "logit_bias": ((3, 6.0),)},
        {"eos_token_id": -1, "sequence_bias": [[[3], 6.0]]},
    ),
}
SAMPLED: dict[str, dict[str, object]] = {
    "filters": {"temperature": 1.2, "top_p": 0.8, "top_k": 30, "min_p": 0.02, "seed": 5},
    "penalties": {"temperature": 0.8, "presence_penalty": 0.7, "frequency_penalty": 0.3, "seed": 6, "logprobs": 20},
    "stop": {"temperature": 1.5, "stop": ("e", "a"), "seed": 7},
    "prompt_logprobs": {"prompt_logprobs": 3, "logprobs": 5},
}


def asked(name: str, salt: int, sampling: dict[str, object]) -> SequenceRequest:
    reported = SamplingParams(**{"max_tokens": MAX_TOKENS, "temperature": 0.0, **sampling})  # type: ignore[arg-type]  # any
    return SequenceRequest(sequence_id=f"{name} {salt}", prompt=prompt(salt, 5 + 11 * salt), sampling=reported)


@pytest.fixture(scope="module")
def plain_model(tiny_folder: Path) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(tiny_folder)
    return model


def generated(model: PreTrainedModel, request: SequenceRequest, reported: dict[str, object]) -> list[int]:
    ids = torch.tensor([request.prompt])
    settings: dict[str, object] = {"do_sample": False, "max_new_tokens": MAX_TOKENS, "eos_token_id": END_OF_TURN}
    generate: Callable[..., Tensor] = model.generate
    output = generate(ids, attention_mask=torch.ones_like(ids), pad_token_id=0, **settings | reported)
    return output[0, ids.shape[1] :].tolist()  # type: ignore[no-any-return]  # torch leaves it open


def test_one_batch_with_everything_gives_each_row_what_it_asked_for(
    tiny: LoadedModel, plain_model: PreTrainedModel
) -> None:
    compared = {
        one.sequence_id: (one, reported)
        for name, (sampling, reported) in COUNTERPARTS.items()
        for salt in range(4)
        for one in [asked(name, salt, sampling)]
    }
    picked = [asked(name, salt, sampling) for name, sampling in SAMPLED.items() for salt in range(4)]
    engine = Engine(tiny.runner, tiny.text, tiny.limits)
    alone = {one.sequence_id: said(run(engine, one))[one.sequence_id] for one in picked}

    outputs = run(
        engine,
        *[one for pair in zip(picked, list(compared.values()), strict=False) for one in (pair[0], pair[1][0])],
        *[one for one, _ in list(compared.values())[len(picked) :]],
    )

    for name, (request, reported) in compared.items():
        assert ids_of(outputs[name]) == generated(plain_model, request, reported), name
    for one in picked:
        got, expected = outputs[one.sequence_id], alone[one.sequence_id]
        assert (ids_of(got), text_of(got), got[-1].finish) == (ids_of(expected), text_of(expected), expected[-1].finish)
    for name in compared:
        others = compared[f"plain {name[-1]}"]
        if not name.startswith(("plain", "stop_token_ids")):
            assert compared[name][0].prompt == others[0].prompt
    for feature in COUNTERPARTS.keys() - {"plain"}:
        assert any(ids_of(outputs[f"{feature} {salt}"]) != ids_of(outputs[f"plain {salt}"]) for salt in range(4)), (
            feature
        )


def test_log_probabilities_are_those_of_transformers(tiny: LoadedModel, plain_model: PreTrainedModel) -> None:
    request = asked("logprobs", 3, {"prompt_logprobs": 3, "logprobs": 20, "repetition_penalty": 1.4})
    neighbours = [asked("plain", salt, {}) for salt in range(3)]

    got = run(Engine(tiny.runner, tiny.text, tiny.limits), *neighbours, request)[request.sequence_id]

    ids = [*request.prompt, *ids_of(got)]
    with torch.inference_mode():
        expected = plain_model(torch.tensor([ids])).logits[0].log_softmax(-1)
    reported = [*got[0].prompt_logprobs, *(one for output in got for one in output.logprobs)]
    assert [one.token_id for one in reported] == ids[1:]
    assert [one.logprob for one in reported] == pytest.approx(
        [float(expected[place, token_id]) for place, token_id in enumerate(ids[1:])], abs=1e-3
    )
    for place, one in enumerate(reported):
        num_top = 3 if place < len(request.prompt) - 1 else 20
        likeliest = expected[place].topk(num_top).values.tolist()
        assert [logprob for _, logprob in one.top] == pytest.approx(likeliest, abs=1e-3)
    assert got[-1].finish in (FinishReason.STOP, FinishReason.LENGTH)
