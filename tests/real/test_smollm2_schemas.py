"""SmolLM2 under random schemas at a high temperature: answers that end by themselves are valid, and none gets stuck.

Each run takes a part of 300 schemas; `make test ARGS="tests/real --all-prompts"` takes all of them.
"""

import json
import random

import pytest
from jsonschema import Draft202012Validator

from storage.contract import FinishReason, SamplingParams
from tests.engine.checked import run, text_of
from tests.model.schemas import grammar_of, random_schema
from tests.real.conftest import Real
from workers.engine.engine import Engine
from workers.engine.sequence import SequenceRequest

_NUM_SCHEMAS = 300
_MAX_TOKENS = 110


@pytest.fixture(scope="module")
def schemas(every: tuple[int, int]) -> list[dict[str, object]]:
    """The schemas of this run."""
    return [random_schema(random.Random(f"smollm2 {number}")) for number in range(0, _NUM_SCHEMAS, every[0])]


def test_every_answer_of_a_real_model_that_ends_by_itself_fits_its_schema(
    smollm2: Real, schemas: list[dict[str, object]]
) -> None:
    prompt = smollm2.tools.encode_prompt("A form: ", add_special_tokens=True, allow_special_tokens=False)
    engine = Engine(smollm2.loaded.runner, smollm2.loaded.text, smollm2.loaded.limits)

    outputs = run(
        engine,
        *[
            SequenceRequest(
                sequence_id=str(number),
                prompt=tuple(prompt),
                sampling=SamplingParams(max_tokens=_MAX_TOKENS, temperature=1.5, seed=number),
                matcher=smollm2.loaded.grammars.matcher(grammar_of(schema)),
            )
            for number, schema in enumerate(schemas)
        ],
    )

    num_whole = 0
    for number, schema in enumerate(schemas):
        got = outputs[str(number)]
        assert got[-1].failure is None, (schema, got[-1].failure)
        if got[-1].finish is FinishReason.STOP:
            num_whole += 1
            validator = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
            assert [error.message for error in validator.iter_errors(json.loads(text_of(got)))] == [], text_of(got)
    assert num_whole > 0.5 * len(schemas)
