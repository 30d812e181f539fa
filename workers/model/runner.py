"""Runs a transformers model one step at a time over a cache of rows."""

import torch
from torch import Tensor
from transformers import PreTrainedModel

from workers.engine.runner import Chunk
from workers.model.attention import Stage
from workers.model.cache import RowCache
from workers.model.layout import Layout
from workers.model.sampling.sampler import Sampler


class TorchRunner:
    """The engine's Runner on torch.

    The model's attention has been replaced: it reads the layout that lies on the stage.
    """

    def __init__(self, model: PreTrainedModel, cache: RowCache, stage: Stage, sampler: Sampler) -> None:
        self._model = model
        self._cache = cache
        self._stage = stage
        self._sampler = sampler
        self._dtype = model.dtype
        self._device = model.device

    @torch.inference_mode()
    def step(self, chunks: list[Chunk]) -> list[int | None]:
        """The next token of each sampled chunk, in order; None where the logits are not finite."""
        sampled = [chunk for chunk in chunks if chunk.is_sampled]
        logits = self.logits(chunks)
        return self._sampler.sample(logits, sampled).token_ids if sampled else []

    @torch.inference_mode()
    def logits(self, chunks: list[Chunk]) -> Tensor:
        """Logits after each sampled chunk, [num_sampled, vocab_size]; of no use when none is sampled."""
        for chunk in chunks:
            self._cache.grow(chunk.row, chunk.end)
        layout = Layout(chunks, max_len=self._cache.max_len, dtype=self._dtype, device=self._device)
        self._stage.layout = layout
        output = self._model(
            input_ids=layout.token_ids.unsqueeze(0),
            position_ids=layout.positions.unsqueeze(0),
            use_cache=False,
            logits_to_keep=0 if layout.last is None else layout.last,
        )
        logits: Tensor = output.logits[0]
        return logits

    def release(self, row: int, last: int) -> None:
        """Clear a row; the last one moves into its place."""
        self._cache.release(row, last)

    def reset(self) -> None:
        """Clear every row."""
        self._cache.reset()
