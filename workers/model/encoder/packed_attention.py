"""Attention over packed texts, plugged into the unmodified model through transformers' AttentionInterface.

The texts of a batch lie behind each other in one row, the shortest first, without padding. Texts of equal length stand
next to each other and are looked at together.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface

IMPLEMENTATION = "tokenpost_packed"
_ATTRIBUTE = "tokenpost_packing"


@dataclass(frozen=True, slots=True)
class Run:
    """Texts of equal length that stand next to each other: tokens `begin` to `begin + num_texts * num_tokens`."""

    begin: int
    num_texts: int
    num_tokens: int

    @property
    def end(self) -> int:
        """The first token behind them."""
        return self.begin + self.num_texts * self.num_tokens


@dataclass(slots=True)
class Packing:
    """The runs of the batch that is computed, which all layers of one model read."""

    runs: list[Run] = field(default_factory=list)


def runs_of(lengths: list[int]) -> list[Run]:
    """The runs of texts of these lengths, which are sorted."""
    runs: list[Run] = []
    for length in lengths:
        if runs and runs[-1].num_tokens == length:
            last = runs.pop()
            runs.append(Run(last.begin, last.num_texts + 1, length))
        else:
            runs.append(Run(runs[-1].end if runs else 0, 1, length))
    return runs


def attach(model: nn.Module, packing: Packing) -> None:
    """Let every layer of the model read the packing."""
    for module in model.modules():
        setattr(module, _ATTRIBUTE, packing)


def detach(model: nn.Module) -> None:
    """Undo `attach`, as far as it was done."""
    for module in model.modules():
        if hasattr(module, _ATTRIBUTE):
            delattr(module, _ATTRIBUTE)


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    is_causal: bool | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """Attention of each text to itself.

    query:      [1, num_heads, num_tokens, head_dim]
    key, value: [1, num_kv_heads, num_tokens, head_dim]
    returns:    [1, num_tokens, num_heads, head_dim]
    """
    packing: Packing = getattr(module, _ATTRIBUTE)
    causal = bool(getattr(module, "is_causal", False) if is_causal is None else is_causal)
    seen = query.new_empty((query.shape[2], query.shape[1], value.shape[3]))
    for run in packing.runs:
        found = functional.scaled_dot_product_attention(
            _texts_of(query, run),
            _texts_of(key, run),
            _texts_of(value, run),
            attn_mask=_window(run.num_tokens, sliding_window, causal, query.device),
            is_causal=causal and (sliding_window is None or run.num_tokens <= sliding_window),
            scale=scaling,
            enable_gqa=query.shape[1] != key.shape[1],
        )
        seen[run.begin : run.end] = found.transpose(1, 2).flatten(0, 1)
    return seen.unsqueeze(0), None


def _texts_of(rows: Tensor, run: Run) -> Tensor:
    """[1, num_heads, num_tokens, head_dim] of a batch to [num_texts, num_heads, num_tokens, head_dim] of a run."""
    texts = rows[0, :, run.begin : run.end]
    return texts.view(texts.shape[0], run.num_texts, run.num_tokens, texts.shape[2]).transpose(0, 1)


def _window(num_tokens: int, sliding_window: int | None, is_causal: bool, device: torch.device) -> Tensor | None:
    """Which positions see each other through a sliding window, [num_tokens, num_tokens]; None where all do.

    The window counts the token itself, in either direction: models whose mask includes the edge give their layers one
    position more (transformers 5.23, `ModernBertAttention`).
    """
    if sliding_window is None or num_tokens <= sliding_window:
        return None
    places = torch.arange(num_tokens, device=device)
    distance = places.unsqueeze(1) - places.unsqueeze(0)
    is_near = distance.abs() < sliding_window
    return is_near & (distance >= 0) if is_causal else is_near


AttentionInterface.register(IMPLEMENTATION, _attend)
