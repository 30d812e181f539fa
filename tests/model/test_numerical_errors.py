from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.engine.checked import run
from tests.model.conftest import greedy, prompt, seeded
from tests.model.tiny import make_tiny
from workers.engine.engine import Engine
from workers.engine.sequence import SequenceRequest
from workers.model.load import LoadedModel, load
from workers.model.resources.memory_options import LoadLimits

# Not among the tokens of the check at load, nor of ordinary prompts.
POISON = 394


@pytest.fixture(params=[float("nan"), float("inf"), float("-inf")])
def poisoned(request: pytest.FixtureRequest, tmp_path: Path, limits: LoadLimits) -> LoadedModel:
    """A model with one token whose embedding is no good."""
    folder = make_tiny(tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.get_input_embeddings().weight[POISON] = request.param
    model.save_pretrained(folder)
    return load(str(folder), device="cpu", limits=limits)


def bad(salt: int) -> SequenceRequest:
    """A request that meets the token in the middle of its prompt."""
    good = greedy(salt)
    ids = (*prompt(salt, 20), POISON, *prompt(salt + 1, 20))
    return SequenceRequest(sequence_id=f"bad{salt}", prompt=ids, sampling=good.sampling)


def test_a_numerical_error_fails_one_request_and_changes_no_other(poisoned: LoadedModel) -> None:
    engine = Engine(poisoned.runner, poisoned.text, poisoned.limits)
    good = [make(salt) for salt in range(6) for make in (greedy, seeded)]
    undisturbed = run(engine, *good)
    mixed = [one for salt, pair in enumerate(zip(good[::2], good[1::2], strict=True)) for one in (bad(salt), *pair)]

    outputs = run(engine, *mixed)

    for salt in range(6):
        (last,) = outputs.pop(f"bad{salt}")
        assert last.failure is not None
        assert last.failure.code == "numerical_error"
    assert outputs == undisturbed
