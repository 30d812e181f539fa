"""Prepares a model of transformers to run over cache blocks, and validates that it still computes the same logits."""

import gc
import importlib
from functools import partial

import structlog
import torch
from torch import Tensor
from transformers import PreTrainedModel

from storage.errors import ModelUnsupported, SettingInvalid
from workers.engine.memory import CachePlan
from workers.model.architecture import checks
from workers.model.architecture.attention_layer import AttentionLayer
from workers.model.architecture.probe import attention_layers
from workers.model.gpu.assembly import free_after_profiling, gpu_runner, profiling_runner
from workers.model.gpu.compiled import compile_layers
from workers.model.gpu.fused import fuse_linears
from workers.model.gpu.kernels import kernels_of
from workers.model.native.assembly import native_bytes_per_token, native_runner
from workers.model.native.library import Library
from workers.model.native.mapping import map_of
from workers.model.native.sampling import native_sampler
from workers.model.prepared_model import Prepared, ValidatedMap, prepared_natively
from workers.model.resources.cache_budget import cache_plan
from workers.model.resources.main_memory import main_memory_bytes
from workers.model.resources.memory_options import LoadLimits
from workers.model.sampling.sampled import Vocabulary
from workers.model.sampling.sampler import Sampler, torch_sampler
from workers.model.sampling.torch_sampling import ApplyMasks
from workers.model.torch import block_attention, linears, norms
from workers.model.torch.block_attention import BlockAttention, Stage
from workers.model.torch.cache import BlockCache, bytes_per_token
from workers.model.torch.runner import TorchRunner
from workers.model.validation import VALIDATION_ENDS, check_agreement, validation_ids, validation_logits

_MIB = 1 << 20

log = structlog.get_logger()


def prepare(model: PreTrainedModel, limits: LoadLimits, vocabulary: Vocabulary, library: Library | None) -> Prepared:
    """The model over blocks of a cache that is allocated now: by the native library where it can, else by torch.

    Raises ModelUnsupported for what blocks cannot serve, SettingInvalid when the budget does not hold one sequence.
    """
    check_ids = validation_ids(model.config.get_text_config().vocab_size)
    try:
        expected = _plain_logits(model, check_ids)
    except Exception as error:
        raise ModelUnsupported(f"The model does not run in transformers itself: {error}") from error
    layers = attention_layers(model)
    checks.check_windows(model.config, layers)
    native = _native(model, layers, limits, vocabulary, library, expected)
    if native is not None:
        try:
            check_agreement(expected, validation_logits(native.runner, check_ids), model.dtype)
        except ModelUnsupported as error:
            log.warning("native_disagrees", model_type=model.config.model_type, reason=error.message)
        else:
            return native
    sampler = _sampler(vocabulary, model.device, library)
    if model.device.type == "cuda":
        on_gpu = _on_gpu(model, layers, limits, sampler, expected, check_ids)
        if on_gpu is not None:
            return on_gpu
        # What the attempt took counts as taken until it is given back, and the next cache is cut from what is free.
        gc.collect()
        torch.cuda.empty_cache()
    prepared = _on_torch(model, layers, limits, sampler)
    try:
        found = validation_logits(prepared.runner, check_ids)
    except Exception as error:
        raise ModelUnsupported(f"The model does not run over a cache of blocks: {error}") from error
    check_agreement(expected, found, model.dtype)
    return prepared


def _native(
    model: PreTrainedModel,
    layers: list[AttentionLayer],
    limits: LoadLimits,
    vocabulary: Vocabulary,
    library: Library | None,
    expected: Tensor,
) -> Prepared | None:
    if library is None or model.device.type != "cpu":
        return None
    weight_map = map_of(model, layers)
    if weight_map is None:
        return None
    plan = _plan(model, limits, native_bytes_per_token(weight_map, model.dtype))
    parameters = dict(model.named_parameters())
    runner = native_runner(library, weight_map, parameters.__getitem__, model.dtype, plan, limits, vocabulary)
    return prepared_natively(runner, plan, ValidatedMap(weight_map=weight_map, expected=expected))


def _sampler(vocabulary: Vocabulary, device: torch.device, library: Library | None) -> Sampler:
    """The sampler for layers that torch computes: the native library on a CPU if there is one, else torch."""
    if library is None or device.type != "cpu":
        return torch_sampler(vocabulary, device, _mask_kernel(device))
    return native_sampler(vocabulary, library)


def _mask_kernel(device: torch.device) -> ApplyMasks | None:
    """Triton's on CUDA; None elsewhere, and where triton is missing."""
    if device.type != "cuda":
        return None
    try:
        # Not above: this module is read on machines without triton too.
        module = importlib.import_module("workers.model.triton.token_masks")
    except ImportError:
        return None
    kernel: ApplyMasks = module.apply_masks
    return kernel


def _on_gpu(
    model: PreTrainedModel,
    layers: list[AttentionLayer],
    limits: LoadLimits,
    sampler: Sampler,
    expected: Tensor,
    check_ids: list[int],
) -> Prepared | None:
    """A GPU runner with Triton's kernels and CUDA graphs; None if they do not run or give other results."""
    steps = partial(validation_logits, token_ids=check_ids)
    compiled = None
    try:
        kernels = kernels_of(model.device)
        norms.fuse_norms(model)
        num_fused = fuse_linears(model, model.config.model_type)
        if limits.is_compiled:
            # Before the cache takes what memory is left.
            with profiling_runner(model, layers, kernels, limits, sampler) as small:
                compiled = compile_layers(model, partial(steps, small), expected)
            del small
        available = free_after_profiling(model, layers, kernels, limits, sampler)
        token_bytes = bytes_per_token([layer.shape for layer in layers], model.dtype)
        plan = _plan(model, limits, token_bytes, available)
        runner = gpu_runner(model, layers, kernels, plan, limits.max_running, sampler)
        if compiled is None or not compiled.serves(partial(steps, runner), expected):
            compiled = None
            check_agreement(expected, steps(runner), model.dtype)
    except SettingInvalid:
        raise
    except Exception as error:
        log.warning("gpu_path_unavailable", error=str(error), exc_info=True)
        if compiled is not None:
            compiled.drop()
        for layer in layers:
            block_attention.detach(layer.module)
        return None
    runner.capture()
    if compiled is not None and not runner.num_graphs:
        # The driver would launch a decode step's operations one by one; perhaps it can capture the model's own.
        compiled.drop()
        compiled = None
        runner.capture()
    how = (
        f"{runner.num_graphs} CUDA graphs, {'compiled' if compiled else 'uncompiled'} layers, {num_fused} fused, "
        f"{available / _MIB:.0f} MiB free for the cache after a profiling step"
    )
    return Prepared(runner=runner, plan=plan, native=None, how=how)


def _on_torch(model: PreTrainedModel, layers: list[AttentionLayer], limits: LoadLimits, sampler: Sampler) -> Prepared:
    plan = _plan(model, limits, bytes_per_token([layer.shape for layer in layers], model.dtype))
    norms.fuse_norms(model)
    num_packed = linears.pack_linears(model) if _may_pack(model) else 0
    runner = _torch_runner(model, layers, plan, sampler)
    return Prepared(runner=runner, plan=plan, native=None, how=f"torch, {num_packed} packed layers")


def _plan(model: PreTrainedModel, limits: LoadLimits, token_bytes: int, free_bytes: int | None = None) -> CachePlan:
    return cache_plan(checks.context_length_of(model.config), model.device, limits, token_bytes, free_bytes)


def _may_pack(model: PreTrainedModel) -> bool:
    """Whether weights may be packed: the second copy must take no more than a quarter of main memory."""
    size_bytes = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    return model.device.type == "cpu" and size_bytes <= main_memory_bytes() // 4


def _torch_runner(
    model: PreTrainedModel, layers: list[AttentionLayer], plan: CachePlan, sampler: Sampler
) -> TorchRunner:
    shapes = [layer.shape for layer in layers]
    cache = BlockCache(
        shapes, num_blocks=plan.num_blocks, block_size=plan.block_size, dtype=model.dtype, device=model.device
    )
    stage = Stage()
    for layer, blocks in zip(layers, cache.layers, strict=True):
        block_attention.attach(layer.module, BlockAttention(blocks, stage, window=layer.window, softcap=layer.softcap))
    model.set_attn_implementation(block_attention.IMPLEMENTATION)
    return TorchRunner(model, cache, stage, sampler)


@torch.inference_mode()
def _plain_logits(model: PreTrainedModel, token_ids: list[int]) -> Tensor:
    """Logits of the unchanged model after each part of the validation, [num_parts, vocab_size]."""
    logits: Tensor = model(input_ids=torch.tensor([token_ids], device=model.device), use_cache=False).logits[0]
    return logits[[end - 1 for end in VALIDATION_ENDS]].clone()
