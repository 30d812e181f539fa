"""Attention over blocks of the cache, plugged into the unmodified model through transformers' AttentionInterface."""

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface

from workers.model.torch.cache import LayerCache
from workers.model.torch.layout import Layout

IMPLEMENTATION = "tokenpost_blocks"
_ATTRIBUTE = "tokenpost_blocks"


class Stage:
    """Holds the layout of the current step, which all layers of one model read."""

    __slots__ = ("layout",)

    def __init__(self) -> None:
        self.layout: Layout


class BlockAttention:
    """One layer's attention: stores the step's keys and values, then looks at the sequences' blocks.

    window:  positions that a token sees, itself included; None is all
    softcap: scores are bent to lie within +-softcap; None leaves them
    """

    def __init__(self, cache: LayerCache, stage: Stage, *, window: int | None, softcap: float | None) -> None:
        self._cache = cache
        self._stage = stage
        self._window = window
        self._softcap = softcap

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
        """Attention output of the step's tokens.

        query:      [1, num_heads, num_tokens, head_dim]
        key, value: [1, num_kv_heads, num_tokens, head_dim]
        returns:    [1, num_tokens, num_heads, head_dim]
        """
        cache, layout = self._cache, self._stage.layout
        num_tokens = query.shape[2]
        width = cache.flat_keys.shape[1]
        cache.flat_keys.index_copy_(0, layout.slots, key[0].transpose(0, 1).reshape(num_tokens, width))
        cache.flat_values.index_copy_(0, layout.slots, value[0].transpose(0, 1).reshape(num_tokens, width))
        queries = query[0].transpose(0, 1)
        if layout.num_decode == num_tokens:
            return self._decode(queries, layout, scale).unsqueeze(0)
        seen = queries.new_empty(queries.shape)
        if layout.num_decode:
            seen[: layout.num_decode] = self._decode(queries[: layout.num_decode], layout, scale)
        for index, span in enumerate(layout.spans):
            seen[span.begin : span.end] = self._prefill(queries[span.begin : span.end], layout, index, scale)
        return seen.unsqueeze(0)

    def _decode(self, queries: Tensor, layout: Layout, scale: float | None) -> Tensor:
        """One token of each sequence: a single call over all of them, query heads of a group as query length.

        queries, returned: [num_decode, num_heads, head_dim]
        """
        num_heads, head_dim = queries.shape[1:]
        keys, values = (rows.transpose(1, 2) for rows in self._cache.read(layout.decode_slots))
        grouped = queries.reshape(len(queries), keys.shape[1], -1, head_dim)
        mask = layout.decode_mask(self._window)
        if self._softcap is None:
            seen = functional.scaled_dot_product_attention(grouped, keys, values, attn_mask=mask, scale=scale)
        else:
            seen = _capped_attention(grouped, keys, values, mask, scale, self._softcap)
        return seen.reshape(len(queries), num_heads, head_dim)

    def _prefill(self, queries: Tensor, layout: Layout, index: int, scale: float | None) -> Tensor:
        """Attention of several tokens of one sequence to those before them.

        queries, returned: [num_tokens, num_heads, head_dim]
        """
        span = layout.spans[index]
        keys, values = (rows.transpose(0, 1) for rows in self._cache.read(span.slots))
        if self._softcap is not None:
            grouped = queries.transpose(0, 1).reshape(keys.shape[0], -1, *queries.shape[::2])
            mask = layout.span_mask(index, self._window)
            seen = _capped_attention(grouped, keys[:, None], values[:, None], mask, scale, self._softcap)
            return seen.flatten(0, 1).transpose(0, 1)
        is_plain = span.start == 0 and (self._window is None or span.stop <= self._window)
        seen = functional.scaled_dot_product_attention(
            queries.transpose(0, 1)[None],
            keys[None],
            values[None],
            attn_mask=None if is_plain else layout.span_mask(index, self._window),
            is_causal=is_plain,
            scale=scale,
            enable_gqa=queries.shape[1] != keys.shape[0],
        )
        return seen[0].transpose(0, 1)


def _capped_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float | None, softcap: float
) -> Tensor:
    """Attention with bent scores, step by step: no fused kernel of torch knows it.

    Source: Gemma authors 2024, "Gemma 2: Improving Open Language Models at a Practical Size".
    """
    scores = query @ key.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scale is None else scale)
    scores = torch.tanh(scores / softcap) * softcap
    if mask is not None:
        scores = scores + mask
    return scores.softmax(-1, dtype=torch.float32).to(value.dtype) @ value


class Attention(Protocol):
    """One layer's attention over blocks, as `BlockAttention.attend`."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor: ...


def attach(module: nn.Module, attention: Attention) -> None:
    """Let the model's attention module use these blocks."""
    setattr(module, _ATTRIBUTE, attention)


def detach(module: nn.Module) -> None:
    """Detach the module from the blocks that it uses, if any."""
    module.__dict__.pop(_ATTRIBUTE, None)


def attached(model: nn.Module) -> list[Attention]:
    """What was attached to the model's attention modules, in their order."""
    return [getattr(module, _ATTRIBUTE) for module in model.modules() if hasattr(module, _ATTRIBUTE)]


def _block_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """The attention function that transformers calls in every layer; its other arguments were checked at load."""
    attention: Attention = getattr(module, _ATTRIBUTE)
    return attention.attend(query, key, value, scaling), None


AttentionInterface.register(IMPLEMENTATION, _block_attention)
