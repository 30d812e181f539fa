"""A device whose memory gives out is met with smaller steps."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from tests.engine.checked import run, said
from tests.model.conftest import TORCH_LIMITS, greedy, seeded
from workers.engine.engine import Engine
from workers.model.load import load


class ScarceMemory:
    """A model that runs out of memory when it is given more than so many tokens at once."""

    def __init__(self, model: Callable[..., object], max_tokens: int) -> None:
        self.num_failures = 0
        self._model = model
        self._max_tokens = max_tokens

    def __call__(self, *, input_ids: Tensor, **rest: object) -> object:
        if input_ids.shape[1] > self._max_tokens:
            self.num_failures += 1
            raise torch.OutOfMemoryError
        return self._model(input_ids=input_ids, **rest)


def test_a_step_that_does_not_fit_is_computed_in_halves_and_nothing_fails(tiny_folder: Path) -> None:
    loaded = load(str(tiny_folder), device="cpu", limits=TORCH_LIMITS)
    requests = [make(salt, num_prompt=30) for salt in range(4) for make in (greedy, seeded)]
    undisturbed = said(run(Engine(loaded.runner, loaded.text, loaded.limits), *requests))
    scarce = ScarceMemory(loaded.runner._model, max_tokens=loaded.limits.max_batch_tokens // 2)
    loaded.runner._model = scarce

    outputs = run(Engine(loaded.runner, loaded.text, loaded.limits), *requests)

    assert scarce.num_failures > 0
    assert said(outputs) == undisturbed
