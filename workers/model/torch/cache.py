"""Keys and values of running sequences: blocks of positions, in every layer."""

import torch
from torch import Tensor

from workers.model.architecture.attention_layer import LayerShape


class LayerCache:
    """One layer's blocks.

    keys, values:           [num_blocks, block_size, num_kv_heads, head_dim]
    flat_keys, flat_values: [num_blocks * block_size, num_kv_heads * head_dim], the same memory
    """

    __slots__ = ("flat_keys", "flat_values", "keys", "values")

    def __init__(
        self, shape: LayerShape, *, num_blocks: int, block_size: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        size = (num_blocks, block_size, shape.num_kv_heads, shape.head_dim)
        # Written once now, or every first write would be a page fault in the middle of a step.
        self.keys = torch.empty(size, dtype=dtype, device=device).zero_()
        self.values = torch.empty(size, dtype=dtype, device=device).zero_()
        self.flat_keys = self.keys.view(num_blocks * block_size, shape.width)
        self.flat_values = self.values.view(num_blocks * block_size, shape.width)

    def read(self, slots: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values at some slots, [*slots.shape, num_kv_heads, head_dim] each."""
        size = (*slots.shape, *self.keys.shape[2:])
        places = slots.flatten()
        return self.flat_keys.index_select(0, places).view(size), self.flat_values.index_select(0, places).view(size)


class BlockCache:
    """All layers' blocks. Slot of a token: block * block_size + its place in the block."""

    def __init__(
        self,
        shapes: list[LayerShape],
        *,
        num_blocks: int,
        block_size: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.block_size = block_size
        self.layers = [
            LayerCache(shape, num_blocks=num_blocks, block_size=block_size, dtype=dtype, device=device)
            for shape in shapes
        ]

    def clear(self, blocks: list[int]) -> None:
        """Zero some blocks."""
        # Sent once: an index that lies on the host would be waited for in every layer.
        places = torch.tensor(blocks, dtype=torch.int64, device=self.layers[0].keys.device)
        for layer in self.layers:
            layer.keys.index_fill_(0, places, 0)
            layer.values.index_fill_(0, places, 0)

    def reset(self) -> None:
        """Zero every block."""
        for layer in self.layers:
            layer.keys.zero_()
            layer.values.zero_()


def bytes_per_token(shapes: list[LayerShape], dtype: torch.dtype) -> int:
    """Cache memory of one token, over all layers, keys and values."""
    return sum(2 * shape.width for shape in shapes) * dtype.itemsize
