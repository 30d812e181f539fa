"""Prefill attention: several tokens of each sequence attend to each other and to the cache before them.

Source: Dao 2023, "FlashAttention-2"; chunks over a cached prefix as in Agrawal et al. 2023, "Sarathi".
"""

import triton
import triton.language as tl
from torch import Tensor

from workers.model.architecture.attention_layer import AttentionRule
from workers.model.triton.online import NOTHING, check_cache, fold, padded, read_tile, tile_of
from workers.model.triton.sequence_blocks import Blocks


# Where a step's arrays begin changes from step to step: code for each alignment would be compiled while streams wait.
@triton.jit(do_not_specialize_on_alignment=["tables", "begins", "lengths"])
def _attend(
    query: tl.tensor,
    keys: tl.tensor,
    values: tl.tensor,
    tables: tl.tensor,
    begins: tl.tensor,
    lengths: tl.tensor,
    seen: tl.tensor,
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
    window: tl.constexpr,
    softcap: tl.constexpr,
):
    """Some tokens of one sequence, for the query heads that share a key head: rows are (token, head of the group)."""
    # Offsets of a long step's queries pass 32 bits where heads are many.
    sequence = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    kv_head = tl.program_id(2)
    tokens_of_part: tl.constexpr = rows // group
    begin = tl.load(begins + sequence).to(tl.int64)
    num_tokens = (tl.load(begins + sequence + 1) - begin).to(tl.int32)
    length = tl.load(lengths + sequence)
    prefix = length - num_tokens

    row = tl.arange(0, rows)
    dim = tl.arange(0, dim_padded)
    token = part * tokens_of_part + row // group
    is_token = (row < tokens_of_part * group) & (token < num_tokens)
    mask = is_token[:, None] & (dim < head_dim)[None, :]
    head = kv_head * group + row % group
    place = (begin + token) * query_stride + head * query_head_stride
    own = tl.load(query + place[:, None] + dim[None, :], mask=mask, other=0.0)
    own_position = prefix + token
    peak = tl.full([rows], NOTHING, tl.float32)
    mass = tl.zeros([rows], tl.float32)
    total = tl.zeros([rows, dim_padded], tl.float32)

    # A part past the sequence's end looks at nothing.
    start_position = prefix + part * tokens_of_part
    stop = tl.where(part * tokens_of_part < num_tokens, tl.minimum(start_position + tokens_of_part, length), 0)
    first = tl.maximum(start_position - window + 1, 0) if window > 0 else length * 0
    table = tables + sequence * table_stride
    for start in range(first // tile * tile, stop, tile):
        position = start + tl.arange(0, tile)
        is_read = (position >= first) & (position < stop)
        key = read_tile(keys, table, position, is_read, kv_head, num_kv_heads, head_dim, dim_padded, block_size)
        value = read_tile(values, table, position, is_read, kv_head, num_kv_heads, head_dim, dim_padded, block_size)
        is_seen = is_read[None, :] & (position[None, :] <= own_position[:, None])
        if window > 0:
            is_seen = is_seen & (position[None, :] > own_position[:, None] - window)
        peak, mass, total = fold(own, key, value, is_seen, peak, mass, total, scale, softcap)

    mean = total / tl.where(mass == 0.0, 1.0, mass)[:, None]
    out = ((begin + token) * num_kv_heads * group + head) * head_dim
    tl.store(seen + out[:, None] + dim[None, :], mean.to(seen.dtype.element_ty), mask=mask)


def attend(query: Tensor, blocks: Blocks, begins: Tensor, rule: AttentionRule, *, max_query_len: int) -> Tensor:
    """Attention output of the tokens of each sequence's chunk; their own keys and values are already in the cache.

    query:         [num_tokens, num_heads, head_dim], chunks one behind the other; the last dimension dense
    begins:        [num_seqs + 1] int32, place of each chunk's first token; the last one is the end
    max_query_len: no chunk is longer; fixes the grid
    returns:       [num_tokens, num_heads, head_dim], zero for tokens of no chunk
    """
    check_cache(query, blocks)
    num_heads, head_dim = query.shape[1:]
    block_size, num_kv_heads = blocks.keys.shape[1:3]
    seen = query.new_zeros(query.shape)
    num_seqs = len(blocks.lengths)
    if not num_seqs or not max_query_len:
        return seen
    group = num_heads // num_kv_heads
    rows = max(rows_of(blocks.keys), int(triton.next_power_of_2(group)))
    _attend[(num_seqs, triton.cdiv(max_query_len, rows // group), num_kv_heads)](
        query,
        blocks.keys,
        blocks.values,
        blocks.tables,
        begins,
        blocks.lengths,
        seen,
        rule.scale,
        query.stride(0),
        query.stride(1),
        blocks.tables.stride(0),
        num_kv_heads=num_kv_heads,
        group=group,
        rows=rows,
        head_dim=head_dim,
        dim_padded=padded(head_dim),
        block_size=block_size,
        tile=tile_of(blocks.keys),
        window=rule.window or 0,
        softcap=rule.softcap or 0.0,
    )
    return seen


def rows_of(keys: Tensor) -> int:
    """Rows of queries that a program holds; fewer where they are wide, or registers would spill."""
    size = padded(keys.shape[3])
    if keys.element_size() == 4:
        return max(16, min(32, 4096 // size))
    return 64 if size <= 256 else 32
