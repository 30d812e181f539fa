"""How a GPU's worker prepares a model, on a CPU that says that graphs can be captured, or that they cannot."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.model.conftest import LIMITS
from tests.model.gpu.machines import read, sampler_of
from workers.model import preparation
from workers.model.architecture.probe import attention_layers
from workers.model.gpu.runner import GpuRunner
from workers.model.load import LoadedModel
from workers.model.prepared_model import Prepared
from workers.model.torch import block_attention
from workers.model.validation import validation_logits

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # of torch's own compiler
CHECK = list(range(0, 120, 10))
MIB = 1 << 20


def prepared_on_gpu(
    plain: LoadedModel, folder: Path, monkeypatch: pytest.MonkeyPatch, num_graphs: int, *, is_compiled: bool
) -> tuple[Prepared, list[GpuRunner]]:
    """What is made where a capture leaves so many graphs, and every runner that was asked for one."""
    captured: list[GpuRunner] = []

    def capture(runner: GpuRunner) -> None:
        captured.append(runner)

    monkeypatch.setattr(preparation, "free_after_profiling", _enough)
    monkeypatch.setattr(GpuRunner, "capture", capture)
    monkeypatch.setattr(GpuRunner, "num_graphs", num_graphs)
    model = read(folder)
    layers = attention_layers(model)
    limits = replace(LIMITS, is_compiled=is_compiled, kv_budget_bytes=MIB)
    expected = validation_logits(plain.runner, CHECK)
    prepared = preparation._on_gpu(model, layers, limits, sampler_of(plain), expected, CHECK)
    assert prepared is not None
    return prepared, captured


@pytest.mark.parametrize(
    ("is_compiled", "num_graphs", "reported", "num_captures"),
    [(True, 3, "3 CUDA graphs, compiled", 1), (True, 0, "0 CUDA graphs, uncompiled", 2), (False, 3, "uncompiled", 1)],
    ids=["compiled", "without_graphs", "not_asked_for"],
)
def test_layers_are_compiled_where_that_is_wanted_and_graphs_can_be_captured(
    plain: LoadedModel,
    tiny_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_compiled: bool,
    num_graphs: int,
    reported: str,
    num_captures: int,
) -> None:
    prepared, captured = prepared_on_gpu(plain, tiny_folder, monkeypatch, num_graphs, is_compiled=is_compiled)

    assert reported in prepared.how
    assert len(captured) == num_captures
    logits = validation_logits(prepared.runner, CHECK)
    assert torch.allclose(logits, validation_logits(plain.runner, CHECK), atol=1e-3)


@pytest.mark.parametrize("is_late", [False, True], ids=["before_the_cache_is_made", "after_it"])
def test_nothing_stays_where_the_gpu_path_fails(
    plain: LoadedModel, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, is_late: bool
) -> None:
    monkeypatch.setattr(preparation, "free_after_profiling", _enough if is_late else _no_memory)
    model = read(tiny_folder)
    layers = attention_layers(model)
    expected = validation_logits(plain.runner, CHECK)
    asked = expected.flip(-1) if is_late else expected

    prepared = preparation._on_gpu(model, layers, LIMITS, sampler_of(plain), asked, CHECK)

    assert prepared is None
    assert "forward" not in vars(model.base_model)
    assert block_attention.attached(model) == []


def _enough(*_: object) -> int:
    return 64 * MIB


def _no_memory(*_: object) -> int:
    raise torch.OutOfMemoryError
