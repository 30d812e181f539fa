"""Builds a runner on the native library for a model that the library supports."""

import torch
from transformers import PreTrainedModel

from workers.engine.memory import CachePlan
from workers.model.architecture.attention_layer import AttentionLayer
from workers.model.native.decoder import Decoder
from workers.model.native.library import TILE_OUTPUTS, Library, Limits
from workers.model.native.runner import NativeRunner
from workers.model.native.sampling import native_sampler
from workers.model.native.weights import weights_of
from workers.model.resources import devices
from workers.model.resources.memory_options import LoadLimits
from workers.model.sampling.sampled import Vocabulary

# How often a thread that has nothing to do looks whether a phase is over, or a run begins, before it sleeps.
_NUM_SPINS = 5000
# Prompts whose log probabilities are wanted are scored so many positions at a time.
_MIN_LOGIT_ROWS = 64


def native_bytes_per_token(layers: list[AttentionLayer], dtype: torch.dtype) -> int:
    """Cache memory of one token, over all layers, keys and values; heads are padded to whole tiles."""
    sizes = (layer.shape.num_kv_heads * -(-layer.shape.head_dim // TILE_OUTPUTS) * TILE_OUTPUTS for layer in layers)
    return 2 * sum(sizes) * dtype.itemsize


def native_runner(
    library: Library,
    model: PreTrainedModel,
    layers: list[AttentionLayer],
    plan: CachePlan,
    limits: LoadLimits,
    vocabulary: Vocabulary,
) -> NativeRunner | None:
    """A runner on the native library, which copies the weights; None for an architecture that it does not support."""
    weights = weights_of(model, layers, plan.max_len)
    if weights is None:
        return None
    decoder = Decoder(
        library,
        weights,
        Limits(
            num_threads=limits.num_threads or devices.NUM_THREADS,
            num_spins=_NUM_SPINS,
            max_batch_tokens=max(limits.max_batch_tokens, limits.max_running),
            num_blocks=plan.num_blocks,
            max_logit_rows=max(limits.max_running, _MIN_LOGIT_ROWS),
        ),
    )
    return NativeRunner(decoder, native_sampler(vocabulary, library, decoder))
