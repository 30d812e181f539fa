"""Keys and values of running sequences: one contiguous row for each, in every layer."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerShape:
    """What one attention layer keeps for a token."""

    num_kv_heads: int
    head_dim: int

    @property
    def width(self) -> int:
        """Numbers of one token's keys, and of its values."""
        return self.num_kv_heads * self.head_dim


class LayerCache:
    """One layer's rows.

    keys, values:           [num_rows, max_len, num_kv_heads, head_dim]
    flat_keys, flat_values: [num_rows * max_len, num_kv_heads * head_dim], the same memory
    """

    __slots__ = ("flat_keys", "flat_values", "keys", "values")

    def __init__(self, shape: LayerShape, *, num_rows: int, max_len: int, dtype: torch.dtype, device: torch.device):
        size = (num_rows, max_len, shape.num_kv_heads, shape.head_dim)
        # Written once now, or every first write would be a page fault in the middle of a step.
        self.keys = torch.empty(size, dtype=dtype, device=device).zero_()
        self.values = torch.empty(size, dtype=dtype, device=device).zero_()
        self.flat_keys = self.keys.view(num_rows * max_len, shape.width)
        self.flat_values = self.values.view(num_rows * max_len, shape.width)


class RowCache:
    """All layers' rows. Slot of a token: row * max_len + position.

    Whatever no running sequence owns is zero. So a sequence's keys cannot outlive it, and a failed one's infinities
    cannot reach a neighbour through masked places, where 0 * inf would be NaN.
    """

    def __init__(
        self, shapes: list[LayerShape], *, num_rows: int, max_len: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.max_len = max_len
        self.layers = [
            LayerCache(shape, num_rows=num_rows, max_len=max_len, dtype=dtype, device=device) for shape in shapes
        ]
        self._lengths = [0] * num_rows

    def grow(self, row: int, length: int) -> None:
        """Note that the row is about to hold `length` tokens."""
        self._lengths[row] = length

    def release(self, row: int, last: int) -> None:
        """Clear a row and move the last one into its place."""
        freed, moved = self._lengths[row], self._lengths[last]
        for layer in self.layers:
            for rows in (layer.keys, layer.values):
                if row != last:
                    rows[row, :moved] = rows[last, :moved]
                    rows[row, moved:freed] = 0
                rows[last, :moved] = 0
        self._lengths[row] = moved
        self._lengths[last] = 0

    def reset(self) -> None:
        """Clear every row."""
        for layer in self.layers:
            layer.keys.zero_()
            layer.values.zero_()
        self._lengths = [0] * len(self._lengths)


def bytes_per_token(shapes: list[LayerShape], dtype: torch.dtype) -> int:
    """Cache memory of one token, over all layers, keys and values."""
    return sum(2 * shape.width for shape in shapes) * dtype.itemsize
