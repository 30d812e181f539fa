"""Stores a step's keys and values in the cache."""

import triton
import triton.language as tl
from torch import Tensor


# Where a step's arrays begin changes from step to step: code for each alignment would be compiled while streams wait.
@triton.jit(do_not_specialize_on_alignment=["slots"])
def _store(
    key: tl.tensor,
    value: tl.tensor,
    keys: tl.tensor,
    values: tl.tensor,
    slots: tl.tensor,
    key_token_stride: tl.tensor,
    key_head_stride: tl.tensor,
    value_token_stride: tl.tensor,
    value_head_stride: tl.tensor,
    head_dim: tl.constexpr,
    width: tl.constexpr,
    width_padded: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    slot = tl.load(slots + token).to(tl.int64)
    place = tl.arange(0, width_padded)
    is_kept = place < tl.where(slot >= 0, width, 0)
    head = place // head_dim
    dim = place % head_dim
    new_key = tl.load(key + token * key_token_stride + head * key_head_stride + dim, mask=is_kept, other=0.0)
    new_value = tl.load(value + token * value_token_stride + head * value_head_stride + dim, mask=is_kept, other=0.0)
    tl.store(keys + slot * width + place, new_key, mask=is_kept)
    tl.store(values + slot * width + place, new_value, mask=is_kept)


def store(key: Tensor, value: Tensor, keys: Tensor, values: Tensor, slots: Tensor) -> None:
    """Write keys and values of a step's tokens to their slots in one layer's cache.

    key, value:   [num_tokens, num_kv_heads, head_dim], the last dimension dense
    keys, values: [num_blocks, block_size, num_kv_heads, head_dim], contiguous; written
    slots:        [num_tokens] int32 or int64, block * block_size + place in the block; a negative one writes nothing
    """
    if not len(slots):
        return
    assert keys.is_contiguous()
    assert values.is_contiguous()
    assert key.stride(-1) == value.stride(-1) == 1
    head_dim = keys.shape[3]
    width = keys.shape[2] * head_dim
    _store[(len(slots),)](
        key,
        value,
        keys,
        values,
        slots,
        key.stride(0),
        key.stride(1),
        value.stride(0),
        value.stride(1),
        head_dim=head_dim,
        width=width,
        width_padded=triton.next_power_of_2(width),
    )
