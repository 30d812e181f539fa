"""Builds the GPU's runner, and measures how much memory its cache may take."""

from array import array
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel

from storage.contract import SamplingParams
from workers.engine.memory import BLOCK_SIZE, CachePlan, blocks_of
from workers.engine.runner import Chunk
from workers.model.architecture import checks
from workers.model.architecture.attention_layer import AttentionLayer
from workers.model.gpu.attention import TableAttention, TableStage
from workers.model.gpu.kernels import Kernels
from workers.model.gpu.network import Network
from workers.model.gpu.runner import GpuRunner
from workers.model.resources.memory_options import LoadLimits
from workers.model.sampling.sampler import Sampler
from workers.model.torch import block_attention
from workers.model.torch.cache import BlockCache

# Left free for the driver, other libraries' workspaces and the allocator's cuttings.
_MARGIN_SHARE = 0.05


def gpu_runner(
    model: PreTrainedModel,
    layers: list[AttentionLayer],
    kernels: Kernels,
    plan: CachePlan,
    max_running: int,
    sampler: Sampler,
) -> GpuRunner:
    """A runner over a cache that is allocated now; without graphs until `capture`."""
    cache = BlockCache(
        [layer.shape for layer in layers],
        num_blocks=plan.num_blocks,
        block_size=plan.block_size,
        dtype=model.dtype,
        device=model.device,
    )
    stage = TableStage()
    for layer, blocks in zip(layers, cache.layers, strict=True):
        attend = TableAttention(blocks, stage, kernels, window=layer.window, softcap=layer.softcap)
        block_attention.attach(layer.module, attend)
    model.set_attn_implementation(block_attention.IMPLEMENTATION)
    return GpuRunner(Network(model, stage), cache, sampler, max_running=max_running, max_len=plan.max_len)


@contextmanager
def profiling_runner(
    model: PreTrainedModel, layers: list[AttentionLayer], kernels: Kernels, limits: LoadLimits, sampler: Sampler
) -> Iterator[GpuRunner]:
    """A runner for the largest steps, whose cache is so small that all their sequences share its blocks.

    Its results are not used, only the memory that it takes. The layers are not changed.
    """
    num_tokens = max(limits.max_batch_tokens, limits.max_running)
    num_blocks = blocks_of(num_tokens, BLOCK_SIZE)
    max_len = max(num_tokens, min(checks.context_length_of(model.config), limits.max_len))
    plan = CachePlan(num_blocks=num_blocks, block_size=BLOCK_SIZE, max_len=max_len, bytes_per_block=0)
    try:
        yield gpu_runner(model, layers, kernels, plan, limits.max_running, sampler)
    finally:
        for layer in layers:
            block_attention.detach(layer.module)


def free_after_profiling(
    model: PreTrainedModel, layers: list[AttentionLayer], kernels: Kernels, limits: LoadLimits, sampler: Sampler
) -> int:
    """Bytes of GPU memory that the cache may take: what is free after weights, twice what a profiling step of the
    largest batch took (once for such a step, once for the graphs), and a margin.
    """
    max_running, num_tokens = limits.max_running, max(limits.max_batch_tokens, limits.max_running)
    with profiling_runner(model, layers, kernels, limits, sampler) as runner:
        torch.cuda.reset_peak_memory_stats(model.device)
        before = torch.cuda.memory_allocated(model.device)
        for chunks in (profiling_chunks(max_running, 1), profiling_chunks(max_running, num_tokens)):
            runner.launch(chunks)
            runner.collect()
        step_bytes = torch.cuda.max_memory_allocated(model.device) - before
    del runner
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info(model.device)
    return max(0, int(free - 2 * step_bytes - _MARGIN_SHARE * total))


def profiling_chunks(max_running: int, num_tokens: int) -> list[Chunk]:
    """Chunks of as many sequences as may run, all of which sample, with so many tokens together, or one each."""
    first = max(1, num_tokens - max_running + 1)
    lengths = [1] * (max_running - 1) + [first]
    sampling = SamplingParams(max_tokens=1, top_p=0.9)
    return [
        Chunk(
            sequence_id=f"profiling {place}",
            blocks=array("i", range(-(-length // BLOCK_SIZE))),
            tokens=[0] * length,
            start=0,
            end=length,
            num_prompt=length,
            sampling=sampling,
            logits_from=length - 1,
        )
        for place, length in enumerate(lengths)
    ]
