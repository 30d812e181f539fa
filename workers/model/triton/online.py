"""Softmax over tiles of positions, one tile after another; what both attention kernels have in common.

Source: Milakov and Gimelshein 2018, "Online normalizer calculation for softmax"; Dao et al. 2022, "FlashAttention".
"""

import triton
import triton.language as tl
from torch import Tensor

from workers.model.triton.sequence_blocks import Blocks

# Stands for minus infinity and can be subtracted from itself.
NOTHING = tl.constexpr(-1e30)
# The interpreter (Triton 3.9) multiplies matrices of bfloat16 as if their bits were integers.
_IS_INTERPRETED = tl.constexpr(bool(triton.knobs.runtime.interpret))


@triton.jit
def bend(scores: tl.tensor, softcap: tl.constexpr):
    """Scores within +-softcap: softcap * tanh(scores / softcap); tanh from exp, since the interpreter has no other."""
    shrunk = tl.exp(-2.0 * tl.abs(scores) / softcap)
    bent = softcap * (1.0 - shrunk) / (1.0 + shrunk)
    return tl.where(scores < 0, -bent, bent)


@triton.jit
def _product(left: tl.tensor, right: tl.tensor):
    """Matrix product with float32 sums."""
    if _IS_INTERPRETED:
        left = left.to(tl.float32)
        right = right.to(tl.float32)
    # "ieee": float32 stays float32 on tensor cores; smaller types are not touched by it.
    return tl.dot(left, right, input_precision="ieee").to(tl.float32)


@triton.jit
def read_tile(
    cache: tl.tensor,
    table: tl.tensor,
    position: tl.tensor,
    is_read: tl.tensor,
    kv_head: tl.tensor,
    num_kv_heads: tl.constexpr,
    head_dim: tl.constexpr,
    dim_padded: tl.constexpr,
    block_size: tl.constexpr,
):
    """Keys or values of one head at some positions of a sequence, [tile, dim_padded]; 0 where nothing is read."""
    block = tl.load(table + position // block_size, mask=is_read, other=0).to(tl.int64)
    row = (block * block_size + position % block_size) * num_kv_heads + kv_head
    dim = tl.arange(0, dim_padded)
    mask = is_read[:, None] & (dim < head_dim)[None, :]
    return tl.load(cache + row[:, None] * head_dim + dim[None, :], mask=mask, other=0.0)


@triton.jit
def fold(
    query: tl.tensor,
    key: tl.tensor,
    value: tl.tensor,
    is_seen: tl.tensor,
    peak: tl.tensor,
    mass: tl.tensor,
    total: tl.tensor,
    scale: tl.tensor,
    softcap: tl.constexpr,
):
    """The softmax state after one more tile.

    query:   [rows, dim_padded]; key, value: [tile, dim_padded]; is_seen: [rows, tile]
    peak:    [rows] highest score so far; mass: [rows] sum of exp(score - peak); total: [rows, dim_padded] values
             weighted so; all float32
    softcap: 0 leaves scores as they are
    """
    scores = _product(query, tl.trans(key)) * scale
    if softcap > 0:
        scores = bend(scores, softcap)
    scores = tl.where(is_seen, scores, NOTHING)
    new_peak = tl.maximum(peak, tl.max(scores, 1))
    shrink = tl.exp(peak - new_peak)
    weights = tl.where(is_seen, tl.exp(scores - new_peak[:, None]), 0.0)
    mass = mass * shrink + tl.sum(weights, 1)
    seen = _product(weights.to(value.dtype), value)
    return new_peak, mass, total * shrink[:, None] + seen


def padded(head_dim: int) -> int:
    """The dimension that a tile has: a power of two, 16 at least, as matrix units want it."""
    return max(16, int(triton.next_power_of_2(head_dim)))


def tile_of(keys: Tensor) -> int:
    """Positions of one tile.

    keys: [num_blocks, block_size, num_kv_heads, head_dim]

    Keys and values of a tile take at most 16 KiB of shared memory each. Float32 has no matrix unit and is multiplied
    from registers: larger tiles than these spill them by the kilobyte, as its compiled code says.
    """
    most = 2048 if keys.element_size() == 4 else 8192
    return max(16, min(64, most // padded(keys.shape[3])))


def check_cache(query: Tensor, blocks: Blocks) -> None:
    """Assert what the kernels assume about memory layout; only a bug could break it."""
    assert blocks.keys.is_contiguous()
    assert blocks.values.is_contiguous()
    assert query.stride(-1) == blocks.tables.stride(-1) == 1
