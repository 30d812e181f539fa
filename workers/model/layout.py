"""How one step's tokens lie in the batch and in the cache; made once, read by every layer."""

from dataclasses import dataclass

import torch
from torch import Tensor

from workers.engine.runner import Chunk


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Several tokens of one sequence: `begin:end` in the batch, `start:stop` in its row."""

    begin: int
    end: int
    row: int
    start: int
    stop: int


class Layout:
    """A step's batch: one token of each decoding sequence, then spans, in the order of the chunks.

    token_ids, positions: [num_tokens]
    slots:       [num_tokens] places in the cache
    last:        [num_sampled] places in the batch whose logits are wanted, place 0 where none is sampled; None when
                 it is every place
    num_decode:  decoding sequences, the first places of the batch
    num_rows:    rows that decode attention looks at, up to the highest one that decodes
    length:      positions that decode attention looks at
    decode_rows: [num_decode] their rows; None when these are 0 .. num_decode - 1
    """

    def __init__(self, chunks: list[Chunk], *, max_len: int, dtype: torch.dtype, device: torch.device) -> None:
        self._dtype = dtype
        self._device = device
        self.num_decode = _num_decode(chunks)
        self.spans = _spans(chunks, self.num_decode)
        self._place(chunks, max_len)
        self._place_decode(chunks[: self.num_decode])
        self._decode_masks: dict[int | None, Tensor | None] = {}
        self._span_masks: dict[tuple[int, int | None], Tensor] = {}

    def _place(self, chunks: list[Chunk], max_len: int) -> None:
        token_ids: list[int] = []
        positions: list[int] = []
        slots: list[int] = []
        last: list[int] = []
        for chunk in chunks:
            token_ids += chunk.tokens[chunk.start : chunk.end]
            positions += range(chunk.start, chunk.end)
            slots += range(chunk.row * max_len + chunk.start, chunk.row * max_len + chunk.end)
            if chunk.is_sampled:
                last.append(len(token_ids) - 1)
        self.token_ids, self.positions, self.slots = self._tensors(token_ids, positions, slots)
        # One place at least, since packed layers take no empty batch.
        self.last = None if len(last) == len(token_ids) else self._tensors(last or [0])[0]

    def _place_decode(self, chunks: list[Chunk]) -> None:
        rows = [chunk.row for chunk in chunks]
        self._lengths = [chunk.end for chunk in chunks]
        self.num_rows = max(rows, default=-1) + 1
        self.length = max(self._lengths, default=0)
        self.decode_rows = None if rows == list(range(self.num_rows)) else self._tensors(rows)[0]

    def decode_mask(self, window: int | None) -> Tensor | None:
        """What each row may look at, [num_rows, 1, 1, length], 0 or -inf; None when that is everything.

        window: positions that a token sees, itself included; None is all
        """
        if window not in self._decode_masks:
            self._decode_masks[window] = self._make_decode_mask(window)
        return self._decode_masks[window]

    def _make_decode_mask(self, window: int | None) -> Tensor | None:
        is_windowed = window is not None and window < self.length
        if self.decode_rows is None and not is_windowed and min(self._lengths) == self.length:
            return None
        lengths = self._tensors(self._lengths)[0]
        if self.decode_rows is not None:
            # Rows between that do not decode look at one place; what they see is thrown away.
            lengths = lengths.new_ones(self.num_rows).index_copy_(0, self.decode_rows, lengths)
        lengths = lengths.view(-1, 1, 1, 1)
        places = torch.arange(self.length, device=self._device)
        hidden = places >= lengths
        if window is not None and is_windowed:
            hidden |= places < lengths - window
        return self._additive(hidden)

    def span_mask(self, index: int, window: int | None) -> Tensor:
        """What each token of a span may look at, [num_tokens, stop], 0 or -inf."""
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


def _spans(chunks: list[Chunk], begin: int) -> list[Span]:
    spans = []
    for chunk in chunks[begin:]:
        end = begin + chunk.end - chunk.start
        spans.append(Span(begin=begin, end=end, row=chunk.row, start=chunk.start, stop=chunk.end))
        begin = end
    return spans
