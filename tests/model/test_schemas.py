"""Answers to JSON schemas by a model that knows nothing of them: whole ones validate with a second implementation."""

import json
import random

import pytest
from jsonschema import Draft202012Validator

from storage.contract import FinishReason, SamplingParams
from tests.engine.checked import run, text_of
from tests.model.conftest import prompt
from tests.model.schemas import grammar_of, random_schema
from workers.engine.engine import Engine
from workers.engine.sequence import SequenceRequest
from workers.model.load import LoadedModel

NUM_SCHEMAS = 300


def asked(tiny: LoadedModel, place: int, schema: dict[str, object], **sampling: object) -> SequenceRequest:
    params = SamplingParams(**{"max_tokens": 100, "temperature": 1.5, "seed": place, **sampling})  # type: ignore[arg-type]
    return SequenceRequest(
        sequence_id=f"s{place}",
        prompt=prompt(place, 6 + place % 20),
        sampling=params,
        matcher=tiny.grammars.matcher(grammar_of(schema)),
    )


def test_every_answer_that_ends_by_itself_fits_its_schema(tiny: LoadedModel) -> None:
    schemas = [random_schema(random.Random(place)) for place in range(NUM_SCHEMAS)]
    engine = Engine(tiny.runner, tiny.text, tiny.limits)

    outputs = run(engine, *[asked(tiny, place, schema) for place, schema in enumerate(schemas)])

    num_whole = 0
    for place, schema in enumerate(schemas):
        got = outputs[f"s{place}"]
        assert got[-1].failure is None, (schema, got[-1].failure)
        if got[-1].finish is FinishReason.STOP:
            num_whole += 1
            validator = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
            validator.validate(json.loads(text_of(got)))
    assert num_whole > 0.8 * NUM_SCHEMAS


@pytest.mark.parametrize(
    "sampling",
    [
        {"temperature": 0.0},
        {"top_p": 0.3},
        {"top_k": 5},
        {"min_p": 0.2, "presence_penalty": 1.0, "frequency_penalty": 0.5},
        {"repetition_penalty": 1.3, "logit_bias": ((5, 100.0), (6, -100.0), (94, -100.0))},
        {"min_tokens": 90},
        {"ignore_eos": True},
        {"logprobs": 3},
    ],
    ids=str,
)
def test_a_schema_holds_with_every_way_to_sample(tiny: LoadedModel, sampling: dict[str, object]) -> None:
    schemas = [random_schema(random.Random(1000 + place), depth=1) for place in range(24)]
    engine = Engine(tiny.runner, tiny.text, tiny.limits)

    outputs = run(engine, *[asked(tiny, place, schema, **sampling) for place, schema in enumerate(schemas)])

    endings = [got[-1] for got in outputs.values()]
    assert all(one.failure is None for one in endings)
    whole = [place for place in range(24) if outputs[f"s{place}"][-1].finish is FinishReason.STOP]
    for place in whole:
        Draft202012Validator(schemas[place]).validate(json.loads(text_of(outputs[f"s{place}"])))
    assert len(whole) > 12
