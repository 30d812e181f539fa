"""Attention over blocks, slow and obvious: one token after another, gathered positions, softmax in float32."""

import torch
from torch import Tensor


def seen_by_token(
    query: Tensor, keys: Tensor, values: Tensor, table: Tensor, visible: range, scale: float, softcap: float | None
) -> Tensor:
    """What one token sees, [num_heads, head_dim] float32.

    query:   [num_heads, head_dim]
    table:   [max_blocks]
    visible: positions that it looks at
    """
    block_size, num_kv_heads = keys.shape[1:3]
    group = query.shape[0] // num_kv_heads
    places = torch.arange(visible.start, visible.stop, device=query.device)
    blocks = table.long()[places // block_size]
    seen = torch.zeros(query.shape, dtype=torch.float32, device=query.device)
    for head in range(query.shape[0]) if len(visible) else ():
        key = keys[blocks, places % block_size, head // group].float()
        value = values[blocks, places % block_size, head // group].float()
        scores = key @ query[head].float() * scale
        if softcap is not None:
            scores = torch.tanh(scores / softcap) * softcap
        seen[head] = scores.softmax(0) @ value
    return seen


def visible_from(position: int, window: int | None) -> range:
    """What the token at a position looks at, itself included."""
    return range(0 if window is None else max(0, position - window + 1), position + 1)
