"""A decoder inside the library: its memory, and its functions on arrays."""

import ctypes
from array import array

import torch
from torch import Tensor

from workers.model.native.library import Batch, Layer, Library, Limits, NextLayer
from workers.model.native.weights import Weights

# Positions of a cache block, as the kernels are written.
BLOCK_SIZE = 32


class Decoder:
    """Owns the cache, and a copy of the weights in its own layout.

    handle: the library's own
    logits: [max_logit_rows, vocab_size] float32, written by `head`
    instruction_set: what the kernels compute with
    """

    def __init__(self, library: Library, weights: Weights, limits: Limits) -> None:
        self._library = library
        self.instruction_set = library.instruction_set
        self._lasting = weights.lasting
        self._vocab_size = weights.shape.vocab_size
        self._max_batch_tokens = limits.max_batch_tokens
        layers = (Layer * weights.num_layers)()
        failures: list[Exception] = []

        def next_layer(index: int) -> int:
            try:
                layers[index] = weights.layer(index)
            except Exception as error:  # noqa: BLE001 - no exception passes through C++; it is raised below
                failures.append(error)
            return int(not failures)

        limits.next_layer = NextLayer(next_layer)
        self.handle = library.create(weights.shape, layers, weights.outer, limits)
        limits.next_layer = NextLayer()
        weights.release()
        if failures:
            raise failures[0]
        if not self.handle:
            raise MemoryError(f"the decoder could not be created: {library.last_error().decode()}")
        self._best = (ctypes.c_int32 * limits.max_logit_rows)()
        self._is_finite = (ctypes.c_uint8 * limits.max_logit_rows)()
        self.logits = self._view(limits.max_logit_rows)

    def __del__(self) -> None:
        if getattr(self, "handle", None):
            self._library.free(self.handle)

    def memory(self) -> tuple[int, int]:
        """Bytes of the weights, embeddings and rotary tables included, and of the working memory."""
        weights, working = ctypes.c_int64(), ctypes.c_int64()
        self._library.memory(self.handle, weights, working)
        return weights.value + sum(tensor.nbytes for tensor in self._lasting), working.value

    def step(self, batch: Batch) -> None:
        """Run all layers for the batch's tokens and store their keys and values."""
        assert batch.num_tokens <= self._max_batch_tokens
        self._library.step(self.handle, batch)

    def head(self, places: "array[int]") -> list[int | None]:
        """Score what follows the tokens at these places of the last step; the likeliest ids, None where not finite.

        places: at most max_logit_rows
        """
        num_rows = len(places)
        assert num_rows <= len(self._best)
        address, _ = places.buffer_info()
        self._library.head(self.handle, num_rows, address, self._best, self._is_finite)
        best: list[int | None] = self._best[:num_rows]
        if not all(self._is_finite[:num_rows]):
            for place, is_finite in enumerate(self._is_finite[:num_rows]):
                if not is_finite:
                    best[place] = None
        return best

    def clear(self, blocks: list[int]) -> None:
        """Zero these blocks of the cache."""
        numbers = array("i", blocks)
        self._library.clear(self.handle, len(numbers), numbers.buffer_info()[0])

    def reset(self) -> None:
        """Zero the whole cache."""
        self._library.reset(self.handle)

    def _view(self, num_rows: int) -> Tensor:
        stride = self._library.logit_stride(self.handle)
        memory = (ctypes.c_float * (num_rows * stride)).from_address(self._library.logits(self.handle))
        # The tensor must not outlive the memory, so the memory keeps its owner.
        memory.owner = self
        return torch.frombuffer(memory, dtype=torch.float32).view(num_rows, stride)[:, : self._vocab_size]
