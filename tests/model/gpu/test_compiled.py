"""Compiled layers say what the plain ones say, from one graph; where they cannot be had, all goes on without."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from structlog.testing import capture_logs
from torch import fx, nn
from transformers import PreTrainedModel

from tests.engine.checked import ids_of, run
from tests.model.conftest import LIMITS, TORCH_LIMITS, greedy, seeded
from tests.model.gpu.machines import read, runner_over, sampler_of
from tests.model.tiny import make_tiny
from workers.engine.engine import Engine
from workers.engine.runner import Chunk, Runner
from workers.model.architecture.attention_layer import AttentionLayer
from workers.model.architecture.probe import attention_layers
from workers.model.gpu.assembly import profiling_runner
from workers.model.gpu.compiled import CompiledLayers, compile_layers
from workers.model.gpu.fused import fuse_linears
from workers.model.gpu.kernels import TorchKernels, kernels_named
from workers.model.gpu.runner import GpuRunner
from workers.model.load import LoadedModel, load
from workers.model.torch import norms
from workers.model.validation import validation_logits

CHECK = [7, 19, 5, 300, 41, 8, 12, 77, 250, 33, 90, 11]
# The last ones run alone: steps of one token.
REQUESTS = [make(salt, num_prompt=3 + salt * 17, max_tokens=9 + salt) for salt in range(5) for make in (greedy, seeded)]


class Backend:
    """Makes graphs run, as they are or by the compiler's own code; counts the runs of each."""

    def __init__(
        self, make: Callable[[fx.GraphModule, Any], Callable[..., Any]] = lambda graph, _: graph.forward
    ) -> None:
        self.runs: Counter[str] = Counter()
        self._names = map("graph {}".format, count())
        self._make = make

    def __call__(self, graph: fx.GraphModule, inputs: object) -> Callable[..., object]:
        name, made = next(self._names), self._make(graph, inputs)

        def counted(*arguments: object) -> object:
            self.runs[name] += 1
            return made(*arguments)

        return counted


def opened(folder: Path) -> tuple[PreTrainedModel, list[AttentionLayer]]:
    """The model as it is when a GPU's worker compiles it."""
    model = read(folder)
    layers = attention_layers(model)
    norms.fuse_norms(model)
    fuse_linears(model, model.config.model_type)
    return model, layers


def compiled_in(
    plain: LoadedModel, model: PreTrainedModel, layers: list[AttentionLayer], backend: Backend
) -> CompiledLayers | None:
    """The layers compiled over a small cache, as when a GPU's worker starts."""
    with profiling_runner(model, layers, TorchKernels(), LIMITS, sampler_of(plain)) as runner:
        steps = partial(validation_logits, runner, CHECK)
        return compile_layers(model, steps, steps(), backend)


def said(plain: LoadedModel, runner: Runner | None = None) -> dict[str, list[int]]:
    """What all requests are answered, computed together in chunks of several sizes."""
    outputs = run(Engine(runner or plain.runner, plain.text, plain.limits), *REQUESTS)
    return {name: ids_of(one) for name, one in outputs.items()}


@pytest.mark.parametrize(
    ("model_type", "changes"),
    [
        ("qwen3", {}),
        ("llama", {}),
        ("gemma2", {"sliding_window": 24, "query_pre_attn_scalar": 16, "attn_logit_softcapping": 3.0}),
        ("gpt2", {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 128}),
    ],
)
def test_one_graph_serves_every_step(tmp_path: Path, model_type: str, changes: dict[str, object]) -> None:
    folder = make_tiny(tmp_path / model_type, model_type, **changes)
    plain = load(str(folder), device="cpu", limits=TORCH_LIMITS)
    model, layers = opened(folder)
    backend = Backend()

    assert_one_graph_says_the_same(plain, model, layers, backend)


# A C++ compiler runs for each of a dozen kernels: a minute of CPU.
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # of torch's own compiler
def test_the_compilers_own_code_says_the_same_and_copies_no_cache(
    plain: LoadedModel, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inductor = Backend(torch._dynamo.lookup_backend("inductor"))
    kernels, written = kernels_named("torch"), []
    store = kernels.store
    monkeypatch.setattr(
        kernels,
        "store",
        lambda key, value, keys, values, slots: (
            written.append((keys.data_ptr(), values.data_ptr())),
            store(key, value, keys, values, slots),
        ),
    )

    runner = assert_one_graph_says_the_same(plain, *opened(tiny_folder), inductor)

    caches = [(layer.keys.data_ptr(), layer.values.data_ptr()) for layer in runner._cache.layers]
    assert written[-len(caches) :] == caches


def assert_one_graph_says_the_same(
    plain: LoadedModel, model: PreTrainedModel, layers: list[AttentionLayer], backend: Backend
) -> GpuRunner:
    compiled = compiled_in(plain, model, layers, backend)
    runner = runner_over(plain, model, layers, TorchKernels())
    assert compiled is not None
    assert compiled.serves(partial(validation_logits, runner, CHECK), validation_logits(plain.runner, CHECK))
    num_runs = backend.runs.total()
    steps = CountedSteps(runner)

    assert said(plain, steps) == said(plain)

    assert len(backend.runs) == 1
    assert backend.runs.total() - num_runs == steps.num_launches
    return runner


class CountedSteps:
    """A runner, and how many steps it began."""

    def __init__(self, runner: GpuRunner) -> None:
        self.num_ahead, self.num_launches = runner.num_ahead, 0
        self.collect, self.clear, self.reset = runner.collect, runner.clear, runner.reset
        self._launch = runner.launch

    def launch(self, chunks: list[Chunk]) -> None:
        self.num_launches += 1
        self._launch(chunks)


def test_a_step_that_needs_another_graph_is_not_kept_waiting_for_it(plain: LoadedModel, tiny_folder: Path) -> None:
    model, layers = opened(tiny_folder)
    backend = Backend()
    assert compiled_in(plain, model, layers, backend) is not None
    runner = runner_over(plain, model, layers, TorchKernels())
    num_runs = backend.runs.total()

    # A graph is made for as many threads as there are.
    torch.set_num_threads(2)
    try:
        logits = validation_logits(runner, CHECK)
    finally:
        torch.set_num_threads(1)

    assert torch.allclose(logits, validation_logits(plain.runner, CHECK), atol=1e-3)
    assert (len(backend.runs), backend.runs.total()) == (1, num_runs)


@pytest.mark.parametrize("reason", ["asks_the_device", "computes_something_else"])
def test_without_a_graph_that_agrees_layers_stay_as_they_were(
    plain: LoadedModel, tiny_folder: Path, reason: str
) -> None:
    model, layers = opened(tiny_folder)
    if reason == "asks_the_device":
        model.get_decoder().layers[1].register_forward_hook(_ask)

    with capture_logs() as logs:
        compiled = compiled_in(plain, model, layers, Backend() if reason == "asks_the_device" else Backend(_reversed))

    assert compiled is None
    assert [one["event"] for one in logs if one["log_level"] == "warning"] == ["compiled_layers_unavailable"]
    assert said(plain, runner_over(plain, model, layers, TorchKernels())) == said(plain)


def _reversed(graph: fx.GraphModule, inputs: object) -> Callable[..., Any]:
    return lambda *arguments: [one.flip(-1) for one in graph.forward(*arguments)]


def _ask(module: nn.Module, inputs: object, output: torch.Tensor) -> None:
    assert float(output.sum()) < 1e9
