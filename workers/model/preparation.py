"""Turns a model as transformers loads it into one that runs over rows, and proves that it computes the same."""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from storage.contract import SamplingParams
from storage.errors import ModelUnsupported
from workers.engine.memory import CachePlan, plan_cache
from workers.engine.runner import Chunk
from workers.model import attention, checks, devices, linears, norms
from workers.model.attention import RowAttention, Stage
from workers.model.cache import RowCache, bytes_per_token
from workers.model.limits import LoadLimits
from workers.model.probe import AttentionLayer, attention_layers
from workers.model.runner import TorchRunner
from workers.model.sampling.sampler import Sampler

# The trial runs this many tokens in three ways: a prompt, one token that decodes, and the rest behind them.
_TRIAL_ENDS = (5, 6, 12)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A runner and what was made for it.

    num_packed: linear layers laid out for the processor
    """

    runner: TorchRunner
    plan: CachePlan
    num_packed: int


def prepare(model: PreTrainedModel, limits: LoadLimits, eos_token_ids: frozenset[int]) -> Prepared:
    """The model over rows of a cache that is allocated now.

    Raises ModelUnsupported for what rows cannot serve, SettingInvalid when the budget does not hold one sequence.
    """
    trial = torch.arange(_TRIAL_ENDS[-1], device=model.device) * 7919 % model.config.get_text_config().vocab_size
    try:
        expected = _plain_logits(model, trial)
    except Exception as error:
        raise ModelUnsupported(f"The model does not run in transformers itself: {error}") from error
    layers = attention_layers(model)
    checks.check_windows(model.config, layers)
    plan = _plan(model, layers, limits)
    norms.fuse_norms(model)
    num_packed = linears.pack_linears(model) if _may_pack(model) else 0
    sampler = Sampler(vocab_size=expected.shape[1], eos_token_ids=eos_token_ids, device=model.device)
    runner = _runner(model, layers, plan, sampler)
    checks.check_agreement(expected, _row_logits(runner, trial.tolist()), model.dtype)
    return Prepared(runner=runner, plan=plan, num_packed=num_packed)


def _plan(model: PreTrainedModel, layers: list[AttentionLayer], limits: LoadLimits) -> CachePlan:
    budget = limits.kv_budget_bytes
    return plan_cache(
        context_length=checks.context_length_of(model.config),
        bytes_per_token=bytes_per_token([layer.shape for layer in layers], model.dtype),
        max_running=limits.max_running,
        max_len=limits.max_len,
        budget_bytes=devices.cache_budget_bytes(model.device) if budget is None else budget,
    )


def _may_pack(model: PreTrainedModel) -> bool:
    """Packed weights are a second copy; they are made when that takes no more than a quarter of main memory."""
    size_bytes = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    return model.device.type == "cpu" and size_bytes <= devices.main_memory_bytes() // 4


def _runner(model: PreTrainedModel, layers: list[AttentionLayer], plan: CachePlan, sampler: Sampler) -> TorchRunner:
    shapes = [layer.shape for layer in layers]
    cache = RowCache(shapes, num_rows=plan.num_rows, max_len=plan.max_len, dtype=model.dtype, device=model.device)
    stage = Stage()
    for layer, rows in zip(layers, cache.layers, strict=True):
        row_attention = RowAttention(rows, stage, window=layer.window, softcap=layer.softcap)
        attention.attach(layer.module, row_attention)
    model.set_attn_implementation(attention.IMPLEMENTATION)
    return TorchRunner(model, cache, stage, sampler)


@torch.inference_mode()
def _plain_logits(model: PreTrainedModel, token_ids: Tensor) -> Tensor:
    """What the unchanged model says after each of the trial's parts, [num_parts, vocab_size]."""
    logits: Tensor = model(input_ids=token_ids.unsqueeze(0), use_cache=False).logits[0]
    return logits[[end - 1 for end in _TRIAL_ENDS]].clone()


def _row_logits(runner: TorchRunner, token_ids: list[int]) -> Tensor:
    """What the prepared model says there."""
    logits = []
    start = 0
    for end in _TRIAL_ENDS:
        chunk = Chunk(
            sequence_id="trial",
            row=0,
            tokens=token_ids[:end],
            start=start,
            end=end,
            num_prompt=end,
            sampling=SamplingParams(max_tokens=1),
        )
        logits.append(runner.logits([chunk]))
        start = end
    runner.release(0, 0)
    return torch.cat(logits)
