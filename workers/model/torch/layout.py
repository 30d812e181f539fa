"""Layout of one step's tokens in the batch and in the cache; made once, read by every layer."""

from dataclasses import dataclass

import torch
from torch import Tensor

from workers.engine.runner import Chunk


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Several tokens of one sequence: `begin:end` in the batch, positions `start:stop`.

    slots: [stop] places in the cache of all its positions so far
    """

    begin: int
    end: int
    start: int
    stop: int
    slots: Tensor


class Layout:
    """A step's batch: one token of each decoding sequence, then spans, in the order of the chunks.

    token_ids, positions: [num_tokens]
    slots:        [num_tokens] places in the cache
    last:         [num_wanted] places in the batch whose logits are wanted, place 0 where none is; None when it is
                  every place
    num_decode:   decoding sequences, the first places of the batch
    decode_slots: [num_decode, length] places in the cache of their positions; past a sequence's end its last one, so
                  that nobody ever reads what belongs to another
    """

    def __init__(
        self, chunks: list[Chunk], wanted: list[int], *, block_size: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self._dtype = dtype
        self._device = device
        self._block_size = block_size
        self.num_decode = _num_decode(chunks)
        self._place(chunks, wanted)
        self._place_decode(chunks[: self.num_decode])
        self.spans = self._spans(chunks)
        self._decode_masks: dict[int | None, Tensor | None] = {}
        self._span_masks: dict[tuple[int, int | None], Tensor] = {}

    def _place(self, chunks: list[Chunk], wanted: list[int]) -> None:
        token_ids: list[int] = []
        positions: list[int] = []
        slots: list[int] = []
        size = self._block_size
        for chunk in chunks:
            token_ids += chunk.tokens[chunk.start : chunk.end]
            positions += range(chunk.start, chunk.end)
            slots += [chunk.blocks[place // size] * size + place % size for place in range(chunk.start, chunk.end)]
        self.token_ids, self.positions, self.slots = self._tensors(token_ids, positions, slots)
        # One place at least, since packed layers take no empty batch.
        self.last = None if len(wanted) == len(token_ids) else self._tensors(wanted or [0])[0]

    def _place_decode(self, chunks: list[Chunk]) -> None:
        self._lengths = [chunk.end for chunk in chunks]
        length = max(self._lengths, default=0)
        if chunks:
            (lengths,) = self._tensors(self._lengths)
            num_blocks = -(-length // self._block_size)
            tables = [[*chunk.blocks[:num_blocks], *[0] * (num_blocks - len(chunk.blocks))] for chunk in chunks]
            places = torch.arange(length, device=self._device).minimum(lengths.unsqueeze(1) - 1)
            blocks = torch.tensor(tables, device=self._device).gather(1, places // self._block_size)
            self.decode_slots = blocks * self._block_size + places % self._block_size

    def _spans(self, chunks: list[Chunk]) -> list[Span]:
        spans = []
        begin = self.num_decode
        for chunk in chunks[begin:]:
            end = begin + chunk.end - chunk.start
            places = torch.arange(chunk.end, device=self._device)
            (blocks,) = self._tensors(list(chunk.blocks))
            slots = blocks[places // self._block_size] * self._block_size + places % self._block_size
            spans.append(Span(begin=begin, end=end, start=chunk.start, stop=chunk.end, slots=slots))
            begin = end
        return spans

    def decode_mask(self, window: int | None) -> Tensor | None:
        """Attention mask of each sequence, [num_decode, 1, 1, length], 0 or -inf; None if nothing is masked.

        window: positions that a token sees, itself included; None is all
        """
        if window not in self._decode_masks:
            self._decode_masks[window] = self._make_decode_mask(window)
        return self._decode_masks[window]

    def _make_decode_mask(self, window: int | None) -> Tensor | None:
        length = max(self._lengths)
        is_windowed = window is not None and window < length
        if not is_windowed and min(self._lengths) == length:
            return None
        lengths = self._tensors(self._lengths)[0].view(-1, 1, 1, 1)
        places = torch.arange(length, device=self._device)
        hidden = places >= lengths
        if window is not None and is_windowed:
            hidden |= places < lengths - window
        return self._additive(hidden)

    def span_mask(self, index: int, window: int | None) -> Tensor:
        """Attention mask of each token of a span, [num_tokens, stop], 0 or -inf."""
        if (index, window) not in self._span_masks:
            self._span_masks[index, window] = self._make_span_mask(self.spans[index], window)
        return self._span_masks[index, window]

    def _make_span_mask(self, span: Span, window: int | None) -> Tensor:
        seen = torch.ones(span.stop - span.start, span.stop, dtype=torch.bool, device=self._device).tril(span.start)
        if window is not None:
            seen = seen.triu(span.start - window + 1)
        return self._additive(~seen)

    def _additive(self, hidden: Tensor) -> Tensor:
        mask = torch.zeros(hidden.shape, dtype=self._dtype, device=self._device)
        return mask.masked_fill_(hidden, float("-inf"))

    def _tensors(self, *values: list[int]) -> list[Tensor]:
        return [torch.tensor(numbers, device=self._device) for numbers in values]


def _num_decode(chunks: list[Chunk]) -> int:
    for place, chunk in enumerate(chunks):
        if chunk.end - chunk.start > 1:
            return place
    return len(chunks)
