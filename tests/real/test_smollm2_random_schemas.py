"""SmolLM2 within JSON schemas, at a temperature at which it writes nonsense: whole answers fit their schemas."""

import json
import random

from jsonschema import Draft202012Validator

from storage.contract import FinishReason, SamplingParams
from tests.engine.checked import run, text_of
from tests.model.schemas import grammar_of, random_schema
from tests.real.conftest import Real
from workers.engine.engine import Engine
from workers.engine.sequence import SequenceRequest

NUM_SCHEMAS = 300


def test_every_answer_that_ends_by_itself_fits_its_schema(smollm2: Real, every: tuple[int, int]) -> None:
    schemas = [random_schema(random.Random(place)) for place in range(0, NUM_SCHEMAS, every[0])]
    requests = [
        SequenceRequest(
            sequence_id=f"s{place}",
            prompt=tuple(smollm2.tokenizer.encode(f"Write JSON, number {place}:")),
            sampling=SamplingParams(max_tokens=100, temperature=1.5, seed=place),
            matcher=smollm2.loaded.grammars.matcher(grammar_of(schema)),
        )
        for place, schema in enumerate(schemas)
    ]

    outputs = run(Engine(smollm2.loaded.runner, smollm2.loaded.text, smollm2.loaded.limits), *requests)

    num_whole = 0
    for place, schema in enumerate(schemas):
        got = outputs[f"s{place}"]
        assert got[-1].failure is None, (schema, got[-1].failure)
        if got[-1].finish is FinishReason.STOP:
            num_whole += 1
            validator = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
            validator.validate(json.loads(text_of(got)))
    assert num_whole > 0.8 * len(schemas)
