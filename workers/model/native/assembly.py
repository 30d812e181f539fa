"""Builds a runner on the native library for a model that the library supports."""

import torch

from workers.engine.memory import CachePlan
from workers.model.native.decoder import Decoder
from workers.model.native.library import TILE_OUTPUTS, Library, Limits
from workers.model.native.runner import NativeRunner
from workers.model.native.sampling import native_sampler
from workers.model.native.weight_map import WeightMap
from workers.model.native.weights import ReadTensor, Weights
from workers.model.resources import devices
from workers.model.resources.memory_options import LoadLimits
from workers.model.sampling.sampled import Vocabulary

# How often a thread that has nothing to do looks whether a phase is over, or a run begins, before it sleeps.
_NUM_SPINS = 5000
# Prompts whose log probabilities are wanted are scored so many positions at a time.
_MIN_LOGIT_ROWS = 64


def native_bytes_per_token(weight_map: WeightMap, dtype: torch.dtype) -> int:
    """Cache memory of one token, over all layers, keys and values; heads are padded to whole tiles."""
    width = weight_map.num_kv_heads * -(-weight_map.head_dim // TILE_OUTPUTS) * TILE_OUTPUTS
    return 2 * len(weight_map.layers) * width * dtype.itemsize


def native_runner(
    library: Library,
    weight_map: WeightMap,
    read: ReadTensor,
    dtype: torch.dtype,
    plan: CachePlan,
    limits: LoadLimits,
    vocabulary: Vocabulary,
) -> NativeRunner:
    """The model on the library, which has a copy of its weights."""
    decoder = Decoder(
        library,
        Weights(weight_map, read, dtype, plan.max_len),
        Limits(
            num_threads=limits.num_threads or devices.NUM_THREADS,
            num_spins=_NUM_SPINS,
            max_batch_tokens=max(limits.max_batch_tokens, limits.max_running),
            num_blocks=plan.num_blocks,
            max_logit_rows=max(limits.max_running, _MIN_LOGIT_ROWS),
        ),
    )
    return NativeRunner(decoder, native_sampler(vocabulary, library, decoder))
