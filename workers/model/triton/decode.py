"""Attention of one token of each sequence: positions are split among programs, their states combined after.

Source: Dao et al. 2023, "Flash-Decoding for long-context inference"; Kwon et al. 2023, "PagedAttention".
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from workers.model.rule import AttentionRule
from workers.model.triton.online import NOTHING, check_cache, fold, padded, read_tile, tile_of


@triton.jit
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
    num_splits: tl.constexpr,
    window: tl.constexpr,
    softcap: tl.constexpr,
):
    """The state of one split of one sequence's positions, for the query heads that share a key head.

    The bounds depend on the sequence's own length alone: a neighbour never changes the order of its sums.
    """
    sequence = tl.program_id(0)
    kv_head = tl.program_id(1)
    split = tl.program_id(2)
    length = tl.load(lengths + sequence)
    first = tl.maximum(length - window, 0) if window > 0 else length * 0
    begin = first // tile * tile
    tiles_of_split = tl.cdiv(tl.cdiv(length - begin, tile), num_splits)
    begin += split * tiles_of_split * tile
    end = tl.minimum(begin + tiles_of_split * tile, length)

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


@triton.jit
def _combine(
    peaks: tl.tensor,
    masses: tl.tensor,
    totals: tl.tensor,
    seen: tl.tensor,
    head_dim: tl.constexpr,
    dim_padded: tl.constexpr,
    num_splits: tl.constexpr,
    splits_padded: tl.constexpr,
):
    """One query head's splits weighed against each other; zero where no position was seen."""
    row = tl.program_id(0)
    split = tl.arange(0, splits_padded)
    dim = tl.arange(0, dim_padded)
    is_split = split < num_splits
    state = row * num_splits + split
    peak = tl.load(peaks + state, mask=is_split, other=NOTHING)
    mass = tl.load(masses + state, mask=is_split, other=0.0)
    mask = is_split[:, None] & (dim < head_dim)[None, :]
    total = tl.load(totals + state[:, None] * head_dim + dim[None, :], mask=mask, other=0.0)
    weight = tl.exp(peak - tl.max(peak, 0))
    whole = tl.sum(mass * weight, 0)
    mean = tl.sum(total * weight[:, None], 0) / tl.where(whole == 0.0, 1.0, whole)
    tl.store(seen + row * head_dim + dim, mean.to(seen.dtype.element_ty), mask=dim < head_dim)


def decode(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    tables: Tensor,
    lengths: Tensor,
    rule: AttentionRule,
    *,
    num_splits: int,
) -> Tensor:
    """What one token of each sequence sees. No grid depends on data: the call can be captured in a CUDA graph.

    query:        [num_seqs, num_heads, head_dim], the last dimension dense
    keys, values: [num_blocks, block_size, num_kv_heads, head_dim], contiguous
    tables:       [num_seqs, max_blocks] int32; entries past a sequence's end are not read
    lengths:      [num_seqs] int32, positions seen, the token's own included; 0 for padding, whose output is zero
    num_splits:   programs among which a sequence's positions are divided; sums depend on it in their last bits
    returns:      [num_seqs, num_heads, head_dim]
    """
    check_cache(query, keys, values, tables)
    num_seqs, num_heads, head_dim = query.shape
    block_size, num_kv_heads = keys.shape[1:3]
    seen = query.new_empty(query.shape)
    if not num_seqs:
        return seen
    group = num_heads // num_kv_heads
    peaks = query.new_empty((num_seqs, num_heads, num_splits), dtype=torch.float32)
    masses = torch.empty_like(peaks)
    totals = query.new_empty((num_seqs, num_heads, num_splits, head_dim), dtype=torch.float32)
    _decode_split[(num_seqs, num_kv_heads, num_splits)](
        query,
        keys,
        values,
        tables,
        lengths,
        peaks,
        masses,
        totals,
        rule.scale,
        query.stride(0),
        query.stride(1),
        tables.stride(0),
        num_kv_heads=num_kv_heads,
        group=group,
        rows=max(16, triton.next_power_of_2(group)),
        head_dim=head_dim,
        dim_padded=padded(head_dim),
        block_size=block_size,
        tile=tile_of(keys),
        num_splits=num_splits,
        window=rule.window or 0,
        softcap=rule.softcap or 0.0,
    )
    _weigh(peaks, masses, totals, seen)
    return seen


def _weigh(peaks: Tensor, masses: Tensor, totals: Tensor, seen: Tensor) -> None:
    """Combine the states of all splits; seen is written.

    peaks, masses: [num_seqs, num_heads, num_splits]
    totals:        [num_seqs, num_heads, num_splits, head_dim]
    seen:          [num_seqs, num_heads, head_dim]
    """
    num_seqs, num_heads, num_splits, head_dim = totals.shape
    _combine[(num_seqs * num_heads,)](
        peaks,
        masses,
        totals,
        seen,
        head_dim=head_dim,
        dim_padded=padded(head_dim),
        num_splits=num_splits,
        splits_padded=triton.next_power_of_2(num_splits),
    )
