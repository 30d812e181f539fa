"""On a GPU: Triton's kernels and replayed graphs against the plain runner on a CPU."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from structlog.testing import capture_logs

from tests.engine.checked import ids_of, run
from tests.model.conftest import greedy, seeded
from tests.model.gpu.machines import read, runner_of
from workers.engine.engine import Engine
from workers.engine.runner import Chunk
from workers.model.architecture.probe import attention_layers
from workers.model.gpu.assembly import free_after_profiling
from workers.model.gpu.kernels import TorchKernels, kernels_of
from workers.model.gpu.runner import GpuRunner
from workers.model.load import LoadedModel, load
from workers.model.resources.memory_options import LoadLimits
from workers.model.sampling.sampled import Vocabulary
from workers.model.sampling.sampler import torch_sampler

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")]
REQUESTS = [make(salt, num_prompt=3 + salt * 7 % 41, max_tokens=20) for salt in range(8) for make in (greedy, seeded)]


@pytest.fixture(autouse=True)
def _full_float32() -> Iterator[None]:
    """Products in float32 proper, or near-ties fall otherwise than on a CPU."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("is_reference", [True, False], ids=["torch", "triton"])
def test_one_operation_after_another(plain: LoadedModel, tiny_folder: Path, is_reference: bool) -> None:
    cuda = torch.device("cuda")
    kernels = TorchKernels() if is_reference else kernels_of(cuda)

    outputs = run(Engine(runner_of(plain, tiny_folder, cuda, kernels), plain.text, plain.limits), *REQUESTS)

    expected = run(Engine(plain.runner, plain.text, plain.limits), *REQUESTS)
    assert {name: ids_of(got) for name, got in outputs.items()} == {n: ids_of(got) for n, got in expected.items()}


def test_replayed_graphs_say_what_plain_steps_say(plain: LoadedModel, tiny_folder: Path) -> None:
    cuda = torch.device("cuda")
    eager, graphed = (runner_of(plain, tiny_folder, cuda) for _ in range(2))
    graphed.capture()

    outputs = run(Engine(graphed, plain.text, plain.limits), *REQUESTS)

    expected = run(Engine(eager, plain.text, plain.limits), *REQUESTS)
    assert graphed.num_graphs > 0
    assert {name: ids_of(got) for name, got in outputs.items()} == {n: ids_of(got) for n, got in expected.items()}


class Strict:
    """A runner in whose launches torch raises wherever the host would wait for the device."""

    def __init__(self, runner: GpuRunner) -> None:
        self.num_ahead = runner.num_ahead
        self.collect, self.clear, self.reset = runner.collect, runner.clear, runner.reset
        self._launch = runner.launch

    def launch(self, chunks: list[Chunk]) -> None:
        torch.cuda.set_sync_debug_mode("error")
        try:
            self._launch(chunks)
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_no_launch_waits_for_the_device(plain: LoadedModel, tiny_folder: Path) -> None:
    runner = Strict(runner_of(plain, tiny_folder, torch.device("cuda")))
    # What fails in a launch would be tried again without a word.
    engine = Engine(runner, plain.text, plain.limits)

    with capture_logs() as logs:
        run(engine, *REQUESTS)

    assert [one for one in logs if one["event"] == "step_fault"] == []


def test_loading_chooses_the_gpu_path(tiny_folder: Path) -> None:
    loaded = load(str(tiny_folder), device="cuda", limits=LoadLimits(max_running=6, max_len=128))

    assert "CUDA graphs, compiled layers" in loaded.description
    assert loaded.runner.num_ahead == 1


def test_a_check_leaves_a_margin(plain: LoadedModel, tiny_folder: Path) -> None:
    cuda = torch.device("cuda")
    model = read(tiny_folder, cuda)
    layers = attention_layers(model)
    sampler = torch_sampler(Vocabulary(size=plain.limits.vocab_size, eos_token_ids=()), cuda)

    free = free_after_profiling(model, layers, kernels_of(cuda), LoadLimits(max_running=4), sampler)

    assert 0 < free < torch.cuda.mem_get_info(cuda)[0]
