"""The GPU's runner on whatever device the tests have, and the plain torch runner beside it."""

from dataclasses import replace
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from tests.model.conftest import LIMITS
from workers.engine.memory import BLOCK_SIZE, CachePlan
from workers.model.architecture.attention_layer import AttentionLayer
from workers.model.architecture.probe import attention_layers
from workers.model.gpu.assembly import gpu_runner
from workers.model.gpu.fused import fuse_linears
from workers.model.gpu.kernels import Kernels, kernels_of
from workers.model.gpu.runner import GpuRunner
from workers.model.load import LoadedModel
from workers.model.sampling.sampled import Vocabulary
from workers.model.sampling.sampler import Sampler, torch_sampler

CPU = torch.device("cpu")


def read(folder: Path, device: torch.device = CPU) -> PreTrainedModel:
    """The model as transformers has it, in float32."""
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.to(device).eval()  # type: ignore[arg-type, no-any-return]  # transformers' own `to`


def runner_of(
    loaded: LoadedModel, folder: Path, device: torch.device = CPU, kernels: Kernels | None = None
) -> GpuRunner:
    """A runner with as many blocks as the loaded model's own, all its layers fused."""
    model = read(folder, device)
    layers = attention_layers(model)
    fuse_linears(model, model.config.model_type)
    return runner_over(loaded, model, layers, kernels or kernels_of(device))


def runner_over(
    loaded: LoadedModel, model: PreTrainedModel, layers: list[AttentionLayer], kernels: Kernels
) -> GpuRunner:
    """A runner of this model with as many blocks as the loaded one's own."""
    limits = loaded.limits
    plan = CachePlan(num_blocks=limits.num_blocks, block_size=BLOCK_SIZE, max_len=limits.max_len, bytes_per_block=0)
    return gpu_runner(model, layers, kernels, plan, LIMITS.max_running, sampler_of(loaded, model.device))


def sampler_of(loaded: LoadedModel, device: torch.device = CPU) -> Sampler:
    """What samples the model's tokens on a device."""
    limits = loaded.limits
    return torch_sampler(Vocabulary(size=limits.vocab_size, eos_token_ids=limits.eos_token_ids), device)


def with_runner(loaded: LoadedModel, runner: GpuRunner) -> LoadedModel:
    """The loaded model, computed by another runner."""
    return replace(loaded, runner=runner)
