"""Attention kernels over block tables: Triton's on a GPU, or the same in plain torch."""

import importlib
from functools import cache
from typing import Protocol, cast

import torch
from torch import Tensor
from torch.nn import functional

from workers.model.architecture.attention_layer import AttentionRule
from workers.model.triton.sequence_blocks import Blocks


class Kernels(Protocol):
    """Attention over a cache of blocks; queries are [num_tokens, num_heads, head_dim].

    name: what `kernels_named` finds them by
    """

    name: str

    def store(self, key: Tensor, value: Tensor, keys: Tensor, values: Tensor, slots: Tensor) -> None:
        """Write tokens' keys and values, [num_tokens, num_kv_heads, head_dim], to slots, -1 nowhere.

        keys, values: [num_blocks, block_size, num_kv_heads, head_dim]
        """

    def decode(self, query: Tensor, blocks: Blocks, rule: AttentionRule) -> Tensor:
        """Attention output of the last token of each sequence, [num_seqs, num_heads, head_dim]."""

    def attend(
        self, query: Tensor, blocks: Blocks, begins: Tensor, rule: AttentionRule, *, max_query_len: int
    ) -> Tensor:
        """Attention output of the last tokens of each sequence; sequence i has the queries begins[i]:begins[i + 1].

        max_query_len: no sequence has more of them
        """


class TorchKernels:
    """The slow and obvious reference."""

    name = "torch"

    def store(self, key: Tensor, value: Tensor, keys: Tensor, values: Tensor, slots: Tensor) -> None:
        """As in Kernels."""
        width = keys.shape[2] * keys.shape[3]
        is_kept = slots >= 0
        for numbers, blocks in ((key, keys), (value, values)):
            blocks.view(-1, width).index_copy_(0, slots[is_kept].long(), numbers.reshape(-1, width)[is_kept])

    def decode(self, query: Tensor, blocks: Blocks, rule: AttentionRule) -> Tensor:
        """As in Kernels."""
        keys, values = _gathered(blocks.keys, blocks.tables), _gathered(blocks.values, blocks.tables)
        return _attend(query.unsqueeze(1), keys, values, blocks.lengths.unsqueeze(1), rule)[:, 0]

    def attend(
        self, query: Tensor, blocks: Blocks, begins: Tensor, rule: AttentionRule, *, max_query_len: int
    ) -> Tensor:
        """As in Kernels."""
        seen = torch.empty_like(query)
        bounds, lengths = begins.tolist(), blocks.lengths.tolist()
        for row, (begin, end, length) in enumerate(zip(bounds, bounds[1:], lengths, strict=False)):
            assert end - begin <= max_query_len
            table = blocks.tables[row : row + 1, : -(-length // blocks.keys.shape[1])]
            ends = torch.arange(length - (end - begin), length, device=query.device).add(1).unsqueeze(0)
            rows = query[begin:end].unsqueeze(0)
            keys, values = _gathered(blocks.keys, table), _gathered(blocks.values, table)
            seen[begin:end] = _attend(rows, keys, values, ends, rule)
        return seen


class TritonKernels:
    """Triton's kernels. Importing them needs the triton package, which builds of torch for CPUs do not bring."""

    name = "triton"

    def __init__(self) -> None:
        # Not above: this module is read on machines without triton too.
        modules = (importlib.import_module(f"workers.model.triton.{name}") for name in ("store", "decode", "prefill"))
        store, decode, prefill = modules
        self.store = store.store
        self.decode = decode.decode
        self.attend = prefill.attend


def kernels_of(device: torch.device) -> Kernels:
    """Triton's on CUDA, else the reference. Raises ImportError where triton is missing."""
    return kernels_named(TritonKernels.name if device.type == "cuda" else TorchKernels.name)


@cache
def kernels_named(name: str) -> Kernels:
    """The kernels of this name. Raises as `kernels_of`."""
    return cast("Kernels", TritonKernels()) if name == TritonKernels.name else TorchKernels()


def _gathered(cache: Tensor, tables: Tensor) -> Tensor:
    """[num_seqs, max_blocks * block_size, num_kv_heads, head_dim]."""
    return cache[tables.long()].flatten(1, 2)


def _attend(query: Tensor, keys: Tensor, values: Tensor, ends: Tensor, rule: AttentionRule) -> Tensor:
    """Attention in which the query at [i, j] sees the positions before ends[i, j].

    query:        [num_seqs, num_queries, num_heads, head_dim]
    keys, values: [num_seqs, length, num_kv_heads, head_dim]
    """
    places = torch.arange(keys.shape[1], device=query.device)
    limits = ends.long().unsqueeze(-1)
    seen = places < limits
    if rule.window is not None:
        seen &= places >= limits - rule.window
    num_groups = query.shape[2] // keys.shape[2]
    keys, values = (rows.repeat_interleave(num_groups, 2).transpose(1, 2) for rows in (keys, values))
    # What nobody sees may be a stranger's, and not finite.
    hidden = ~seen.any(1).view(len(keys), 1, -1, 1)
    keys, values = keys.masked_fill(hidden, 0), values.masked_fill(hidden, 0)
    queries = query.transpose(1, 2)
    mask = seen.unsqueeze(1)
    if rule.softcap is None:
        whole = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, scale=rule.scale)
        return whole.transpose(1, 2)
    scores = torch.tanh(queries @ keys.transpose(-1, -2) * rule.scale / rule.softcap) * rule.softcap
    weights = scores.masked_fill(~mask, float("-inf")).softmax(-1, dtype=torch.float32)
    return (weights.to(values.dtype) @ values).transpose(1, 2)
