"""A step's numbers, packed on the host into one array and sent to the device in one copy."""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from workers.engine.runner import Chunk


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Sizes of a step's arrays.

    num_seqs, num_tokens: with those that only fill a bucket
    num_spans:            sequences with several tokens, the last ones
    width:                blocks in a table
    max_query_len:        no sequence has more tokens in this step
    """

    num_seqs: int
    num_tokens: int
    num_spans: int
    width: int
    max_query_len: int = 1

    @classmethod
    def of(cls, measures: Tensor) -> "Shape":
        """The shape whose measures these are."""
        num_seqs, num_tokens, num_spans, width, max_query_len = measures.tolist()
        return cls(
            num_seqs=num_seqs,
            num_tokens=num_tokens,
            num_spans=num_spans,
            width=width,
            max_query_len=max_query_len,
        )

    def measures(self) -> Tensor:
        """The shape as a tensor on the host, [5]: a compiled graph takes no notice of what it holds."""
        return torch.tensor([self.num_seqs, self.num_tokens, self.num_spans, self.width, self.max_query_len])

    @property
    def size(self) -> int:
        """Numbers in all arrays together."""
        return 4 * self.num_tokens + self.num_seqs * (1 + self.width) + self.num_spans + 1


class StepTables:
    """One step's arrays, int32 on the device, views of one buffer.

    token_ids, positions: [num_tokens]
    slots:    [num_tokens] places in the cache; -1 is nowhere
    sources:  [num_tokens] row of the token sampled by the launch before that stands here; -1: token_ids knows it
    lengths:  [num_seqs] positions of each sequence, those of this step included
    tables:   [num_seqs, width] block ids
    begins:   [num_spans + 1] first places of the spans, counted from the first span's
    """

    def __init__(self, measures: Tensor, buffer: Tensor) -> None:
        """measures: of the Shape; buffer: [shape.size] int32"""
        self.shape = shape = Shape.of(measures)
        self.num_spans = shape.num_spans
        self.num_decode = shape.num_seqs - shape.num_spans
        self.measures = measures
        self.buffer = buffer
        self.token_ids, self.positions, self.slots, self.sources, self.lengths, self.tables, self.begins = _cut(
            buffer, shape
        )

    @classmethod
    @torch.inference_mode()
    def new(cls, shape: Shape, device: torch.device) -> "StepTables":
        """Arrays of zeros. All are made in inference mode: others would be another kind to a compiled graph."""
        return cls(shape.measures(), torch.zeros(shape.size, dtype=torch.int32, device=device))

    @torch.inference_mode()
    def pretend(self, place: int) -> None:
        """Fill rows without a sequence: they have this token at this position, store nothing, and read block 0."""
        self.buffer.zero_()
        self.slots.fill_(-1)
        self.sources.fill_(-1)
        self.token_ids.fill_(place)
        self.positions.fill_(place)
        self.lengths.fill_(place + 1)

    @torch.inference_mode()
    def send(self, packed: Tensor) -> None:
        """Fill the arrays from a host tensor of this shape; what was launched before still reads the old ones."""
        self.buffer.copy_(packed, non_blocking=True)


def shape_of(chunks: Sequence[Chunk], width: int, bucket: int | None) -> Shape:
    """The arrays that chunks need; with a bucket all have one token, and rows without a sequence follow."""
    if bucket is not None:
        return Shape(num_seqs=bucket, num_tokens=bucket, num_spans=0, width=width)
    lengths = [chunk.end - chunk.start for chunk in chunks]
    num_decode = next((place for place, length in enumerate(lengths) if length > 1), len(chunks))
    return Shape(
        num_seqs=len(chunks),
        num_tokens=sum(lengths),
        num_spans=len(chunks) - num_decode,
        width=width,
        max_query_len=max(lengths),
    )


def pack(chunks: Sequence[Chunk], shape: Shape, rows: Mapping[str, int], *, block_size: int, is_pinned: bool) -> Tensor:
    """The step's numbers on the host, [shape.size] int32.

    rows: where the launch before put the tokens of the sequences it sampled for
    """
    packed = torch.zeros(shape.size, dtype=torch.int32, pin_memory=is_pinned)
    token_ids, positions, slots, sources, lengths, tables, begins = (part.numpy() for part in _cut(packed, shape))
    slots.fill(-1)
    sources.fill(-1)
    # A row without a sequence looks at one position of block 0: something finite in, something unread out.
    lengths.fill(1)
    begin = 0
    num_decode = shape.num_seqs - shape.num_spans
    for row, chunk in enumerate(chunks):
        end = begin + chunk.end - chunk.start
        if chunk.is_pending:
            sources[begin] = rows[chunk.sequence_id]
        else:
            token_ids[begin:end] = chunk.tokens[chunk.start : chunk.end]
        table = _table(chunk.blocks, -(-chunk.end // block_size))
        places = np.arange(chunk.start, chunk.end)
        positions[begin:end] = places
        slots[begin:end] = table[places // block_size] * block_size + places % block_size
        lengths[row] = chunk.end
        tables[row, : len(table)] = table
        begin = end
        if row >= num_decode:
            begins[row - num_decode + 1] = begins[row - num_decode] + chunk.end - chunk.start
    return packed


def _table(blocks: "array[int]", num_blocks: int) -> "np.ndarray[tuple[int], np.dtype[np.int32]]":
    return np.array(blocks[:num_blocks], dtype=np.int32)


def _cut(buffer: Tensor, shape: Shape) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Token ids, positions, slots, sources, lengths, tables and begins, as views."""
    num_tokens, num_seqs = shape.num_tokens, shape.num_seqs
    sizes = [num_tokens] * 4 + [num_seqs, num_seqs * shape.width, shape.num_spans + 1]
    token_ids, positions, slots, sources, lengths, tables, begins = torch.split(buffer, sizes)
    return token_ids, positions, slots, sources, lengths, tables.view(num_seqs, shape.width), begins
