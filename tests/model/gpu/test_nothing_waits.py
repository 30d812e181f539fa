"""A launch asks the device nothing. Here the device is one that has no answers: tensors of shapes without numbers."""

from array import array
from pathlib import Path

import pytest
import torch
from torch import Tensor

from storage.contract import SamplingParams
from tests.model.gpu.machines import read, runner_over
from tests.model.gpu.test_same_tokens import KINDS
from workers.engine.memory import BLOCK_SIZE
from workers.engine.runner import Chunk
from workers.model.architecture.attention_layer import AttentionRule
from workers.model.architecture.probe import attention_layers
from workers.model.gpu.runner import GpuRunner
from workers.model.load import LoadedModel
from workers.model.triton.sequence_blocks import Blocks

META = torch.device("meta")
ASKED: dict[str, dict[str, object]] = KINDS | {
    "greedy": {"temperature": 0.0},
    "filters": {"top_k": 5, "top_p": 0.8, "min_p": 0.05, "seed": 3},
    "no_filters": {"seed": 5},
}


class ShapedKernels:
    """Attention that yields as many numbers as it should, and knows none."""

    name = "shaped"

    def store(self, key: Tensor, value: Tensor, keys: Tensor, values: Tensor, slots: Tensor) -> None:
        assert len(key) == len(value) == len(slots)

    def decode(self, query: Tensor, blocks: Blocks, rule: AttentionRule) -> Tensor:
        assert len(query) == len(blocks.lengths)
        return torch.empty_like(query)

    def attend(
        self, query: Tensor, blocks: Blocks, begins: Tensor, rule: AttentionRule, *, max_query_len: int
    ) -> Tensor:
        assert len(begins) == len(blocks.lengths) + 1
        assert max_query_len <= len(query)
        return torch.empty_like(query)


@pytest.fixture(scope="module")
def runner(plain: LoadedModel, tiny_folder: Path) -> GpuRunner:
    model = read(tiny_folder, META)
    return runner_over(plain, model, attention_layers(model), ShapedKernels())


def chunk(name: str, start: int, num_tokens: int, kind: str, *, is_pending: bool = False) -> Chunk:
    """Some tokens of a sequence that is 9 long, behind a prompt of 6; one more is pending."""
    return Chunk(
        sequence_id=name,
        blocks=array("i", range(-(-(start + num_tokens) // BLOCK_SIZE))),
        tokens=list(range(20, 29)),
        start=start,
        end=start + num_tokens,
        num_prompt=6,
        sampling=SamplingParams(max_tokens=20, **ASKED[kind]),  # type: ignore[arg-type]  # as in ASKED
        logits_from=start + num_tokens - (start + num_tokens >= 9),
        is_pending=is_pending,
    )


@pytest.mark.parametrize("kind", ASKED)
def test_prompts_mixed_steps_and_decode_steps_are_launched_without_an_answer(runner: GpuRunner, kind: str) -> None:
    names = ("a", "b", "c")

    runner.launch([chunk(name, 0, 9, kind) for name in names])
    runner.launch([*(chunk(name, 9, 1, kind, is_pending=True) for name in names), chunk("d", 0, 5, kind)])
    runner.launch([chunk(name, 9, 1, kind, is_pending=True) for name in names])
    # A prompt that is read one token at a time: a row without a sample.
    runner.launch([chunk("a", 9, 1, kind, is_pending=True), chunk("e", 2, 1, kind)])


def test_a_device_without_answers_gives_none(runner: GpuRunner) -> None:
    runner.launch([chunk("a", 0, 9, "greedy")])

    with pytest.raises((RuntimeError, NotImplementedError)):
        runner.collect()
