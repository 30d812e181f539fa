from pathlib import Path

import pytest
import torch

from tests.engine.checked import run
from tests.model.conftest import LIMITS, greedy, prompt, seeded
from tests.model.tiny import make_tiny
from workers.engine.engine import Engine
from workers.engine.sequence import SequenceRequest
from workers.model.load import LoadedModel, load

POISON = 395


@pytest.fixture(params=[float("nan"), float("inf"), float("-inf")])
def poisoned(request: pytest.FixtureRequest, tmp_path: Path) -> LoadedModel:
    """A model with one token whose embedding is no good."""
    folder = make_tiny(tmp_path / "model")
    loaded = load(str(folder), device="cpu", limits=LIMITS)
    with torch.no_grad():
        loaded.runner._model.get_input_embeddings().weight[POISON] = request.param
    return loaded


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


def test_a_failed_or_cancelled_sequence_leaves_nothing_in_its_row(poisoned: LoadedModel) -> None:
    engine = Engine(poisoned.runner, poisoned.text, poisoned.limits)
    run(engine, greedy(1), bad(2), greedy(3, max_tokens=30))
    for one in (bad(4), greedy(5, num_prompt=60)):
        engine.add(one)
    engine.step()
    engine.cancel("bad4")
    engine.cancel("g5")

    for layer in poisoned.runner._cache.layers:
        assert not layer.keys.any()
        assert not layer.values.any()
