"""Decode attention: one token of each sequence; positions are split among programs, whose states are combined.

Source: Dao et al. 2023, "Flash-Decoding for long-context inference"; Kwon et al. 2023, "PagedAttention".
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from workers.model.architecture.attention_layer import AttentionRule
from workers.model.triton.online import NOTHING, check_cache, fold, padded, read_tile, tile_of
from workers.model.triton.sequence_blocks import Blocks

# Positions of a split at least, and splits at most: short sequences have few states to combine, the longest keep a
# large GPU busy, and all states of a head fit one program's registers.
_MIN_SPLIT_LEN = 128
_MAX_SPLITS = 64


# Where a step's arrays begin changes from step to step: code for each alignment would be compiled while streams wait.
@triton.jit(do_not_specialize_on_alignment=["tables", "lengths"])
def _decode_split(
    query: tl.tensor,
    keys: tl.tensor,
    values: tl.tensor,
    tables: tl.tensor,
    lengths: tl.tensor,
    peaks: tl.tensor,
    masses: tl.tensor,
    totals: tl.tensor,
    scale: tl.tensor,
    query_stride: tl.tensor,
    query_head_stride: tl.tensor,
    table_stride: tl.tensor,
    num_kv_heads: tl.constexpr,
    group: tl.constexpr,
    rows: tl.constexpr,
    head_dim: tl.constexpr,
    dim_padded: tl.constexpr,
    block_size: tl.constexpr,
    tile: tl.constexpr,
    split_len: tl.constexpr,
    num_splits: tl.constexpr,
    window: tl.constexpr,
    softcap: tl.constexpr,
):
    """The state of one split of one sequence's positions, for the query heads that share a key head.

    The bounds depend on the sequence's own length alone: a neighbour never changes the order of its sums. A split past
    the sequence's end leaves no state, and none is looked for.
    """
    # Offsets into all states together pass 32 bits.
    sequence = tl.program_id(0).to(tl.int64)
    kv_head = tl.program_id(1)
    split = tl.program_id(2)
    length = tl.load(lengths + sequence)
    first = tl.maximum(length - window, 0) if window > 0 else length * 0
    begin = first // tile * tile + split * split_len
    if begin >= length:
        return
    end = tl.minimum(begin + split_len, length)

    row = tl.arange(0, rows)
    dim = tl.arange(0, dim_padded)
    is_query = (row < group)[:, None] & (dim < head_dim)[None, :]
    head = kv_head * group + row
    place = sequence * query_stride + head[:, None] * query_head_stride + dim[None, :]
    own = tl.load(query + place, mask=is_query, other=0.0)
    peak = tl.full([rows], NOTHING, tl.float32)
    mass = tl.zeros([rows], tl.float32)
    total = tl.zeros([rows, dim_padded], tl.float32)
    table = tables + sequence * table_stride
    for start in range(begin, end, tile):
        position = start + tl.arange(0, tile)
        is_seen = (position >= first) & (position < end)
        key = read_tile(keys, table, position, is_seen, kv_head, num_kv_heads, head_dim, dim_padded, block_size)
        value = read_tile(values, table, position, is_seen, kv_head, num_kv_heads, head_dim, dim_padded, block_size)
        peak, mass, total = fold(own, key, value, is_seen[None, :], peak, mass, total, scale, softcap)

    state = (sequence * num_kv_heads * group + head) * num_splits + split
    tl.store(peaks + state, peak, mask=row < group)
    tl.store(masses + state, mass, mask=row < group)
    tl.store(totals + state[:, None] * head_dim + dim[None, :], total, mask=is_query)


@triton.jit(do_not_specialize_on_alignment=["lengths"])
def _combine(
    lengths: tl.tensor,
    peaks: tl.tensor,
    masses: tl.tensor,
    totals: tl.tensor,
    seen: tl.tensor,
    num_heads: tl.constexpr,
    head_dim: tl.constexpr,
    dim_padded: tl.constexpr,
    tile: tl.constexpr,
    split_len: tl.constexpr,
    num_splits: tl.constexpr,
    splits_padded: tl.constexpr,
    window: tl.constexpr,
):
    """Combine the splits of one query head by their weights; zero if no position was attended to."""
    row = tl.program_id(0).to(tl.int64)
    length = tl.load(lengths + row // num_heads)
    first = tl.maximum(length - window, 0) if window > 0 else length * 0
    split = tl.arange(0, splits_padded)
    dim = tl.arange(0, dim_padded)
    is_split = (split < num_splits) & (first // tile * tile + split * split_len < length)
    state = row * num_splits + split
    peak = tl.load(peaks + state, mask=is_split, other=NOTHING)
    mass = tl.load(masses + state, mask=is_split, other=0.0)
    mask = is_split[:, None] & (dim < head_dim)[None, :]
    total = tl.load(totals + state[:, None] * head_dim + dim[None, :], mask=mask, other=0.0)
    weight = tl.exp(peak - tl.max(peak, 0))
    whole = tl.sum(mass * weight, 0)
    mean = tl.sum(total * weight[:, None], 0) / tl.where(whole == 0.0, 1.0, whole)
    tl.store(seen + row * head_dim + dim, mean.to(seen.dtype.element_ty), mask=dim < head_dim)


def decode(query: Tensor, blocks: Blocks, rule: AttentionRule) -> Tensor:
    """Attention output of one token of each sequence. No grid depends on data, so that a CUDA graph can capture it.

    query:   [num_seqs, num_heads, head_dim], the last dimension dense; of a sequence of length 0, which is padding, the
             output is zero
    returns: [num_seqs, num_heads, head_dim]

    A row's bits depend on its own sequence and on the width of the tables alone.
    """
    check_cache(query, blocks)
    num_seqs, num_heads, head_dim = query.shape
    num_kv_heads = blocks.keys.shape[2]
    seen = query.new_empty(query.shape)
    if not num_seqs:
        return seen
    group = num_heads // num_kv_heads
    tile = tile_of(blocks.keys)
    split_len, num_splits = splits_of(blocks.max_len, tile)
    peaks = query.new_empty((num_seqs, num_heads, num_splits), dtype=torch.float32)
    masses = torch.empty_like(peaks)
    totals = query.new_empty((num_seqs, num_heads, num_splits, head_dim), dtype=torch.float32)
    common = {
        "head_dim": head_dim,
        "dim_padded": padded(head_dim),
        "tile": tile,
        "split_len": split_len,
        "num_splits": num_splits,
        "window": rule.window or 0,
    }
    _decode_split[(num_seqs, num_kv_heads, num_splits)](
        query,
        blocks.keys,
        blocks.values,
        blocks.tables,
        blocks.lengths,
        peaks,
        masses,
        totals,
        rule.scale,
        query.stride(0),
        query.stride(1),
        blocks.tables.stride(0),
        num_kv_heads=num_kv_heads,
        group=group,
        rows=max(16, triton.next_power_of_2(group)),
        block_size=blocks.keys.shape[1],
        softcap=rule.softcap or 0.0,
        **common,
    )
    _combine[(num_seqs * num_heads,)](
        blocks.lengths,
        peaks,
        masses,
        totals,
        seen,
        num_heads=num_heads,
        splits_padded=triton.next_power_of_2(num_splits),
        **common,
    )
    return seen


def splits_of(max_len: int, tile: int) -> tuple[int, int]:
    """Positions of a split, a multiple of the tile, and the most splits that a sequence of `max_len` may need."""
    wanted = max(_MIN_SPLIT_LEN, -(-max_len // _MAX_SPLITS))
    split_len = -(-wanted // tile) * tile
    return split_len, max(1, -(-max_len // split_len))
