"""Random batches over random caches; what nobody of the batch owns is NaN."""

import random
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from workers.model.triton.sequence_blocks import Blocks


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a model and its cache look like, and how it attends."""

    num_kv_heads: int
    group: int
    head_dim: int
    block_size: int
    window: int | None
    softcap: float | None
    dtype: torch.dtype

    @property
    def scale(self) -> float:
        """The usual one."""
        return self.head_dim**-0.5


def random_shape(dice: random.Random) -> Shape:
    """Some shape, odd ones among them."""
    return Shape(
        num_kv_heads=dice.choice([1, 2, 3]),
        group=dice.choice([1, 2, 3, 4, 5, 7, 8]),
        head_dim=dice.choice([16, 24, 32, 64, 80, 96, 128, 256]),
        block_size=dice.choice([16, 32]),
        window=dice.choice([None, None, 1, 7, 16, 50, 1000]),
        softcap=dice.choice([None, None, 1.5, 30.0]),
        dtype=dice.choice([torch.float32, torch.float32, torch.bfloat16, torch.float16]),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """A cache and the tables of some sequences in it.

    keys, values: [num_blocks, block_size, num_kv_heads, head_dim], NaN where no sequence has a position
    tables:       [num_seqs, max_blocks] int32; past a sequence's end they name blocks that are all NaN
    """

    keys: Tensor
    values: Tensor
    tables: Tensor

    def blocks(self, lengths: list[int], num_more: int = 0) -> Blocks:
        """The blocks of sequences of these lengths; tables are wider by so many blocks than need be."""
        tables = functional.pad(self.tables, (0, num_more))
        device = tables.device
        return Blocks(
            keys=self.keys,
            values=self.values,
            tables=tables,
            lengths=torch.tensor(lengths, dtype=torch.int32, device=device),
        )


def random_mix(dice: random.Random, shape: Shape, lengths: list[int], device: str) -> Mix:
    """Caches for sequences of these lengths; a second one sometimes shares full blocks with the first."""
    size = shape.block_size
    max_blocks = max(-(-length // size) for length in lengths) + 1
    num_blocks = max_blocks * len(lengths) + 1
    free = list(range(1, num_blocks))
    dice.shuffle(free)
    tables = [[free.pop() for _ in range(-(-length // size))] for length in lengths]
    for table, length in zip(tables[1:], lengths[1:], strict=True):
        num_shared = min(length, lengths[0]) // size
        if dice.random() < 0.5:
            table[:num_shared] = tables[0][:num_shared]
    cache = (num_blocks, size, shape.num_kv_heads, shape.head_dim)
    is_owned = torch.zeros(num_blocks, size, dtype=torch.bool)
    for table, length in zip(tables, lengths, strict=True):
        for position in range(length):
            is_owned[table[position // size], position % size] = True
    keys, values = (
        torch.randn(cache).masked_fill(~is_owned[:, :, None, None], float("nan")).to(device, shape.dtype)
        for _ in range(2)
    )
    rows = [[*table, *[0] * (max_blocks - len(table))] for table in tables]
    return Mix(keys=keys, values=values, tables=torch.tensor(rows, dtype=torch.int32, device=device))


def random_query(shape: Shape, num_tokens: int, device: str) -> Tensor:
    """Queries as a fused projection leaves them: a slice of something wider, [num_tokens, num_heads, head_dim]."""
    num_heads = shape.num_kv_heads * shape.group
    wide = torch.randn(num_tokens, num_heads + 2, shape.head_dim).to(device, shape.dtype)
    return wide[:, :num_heads]


def assert_close(seen: Tensor, expected: Tensor) -> None:
    """Equal up to the rounding of the type that was computed in; expected is float32."""
    assert seen.dtype in (torch.float32, torch.bfloat16, torch.float16)
    tolerance = {torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}[seen.dtype]
    torch.testing.assert_close(seen.float(), expected, atol=tolerance, rtol=tolerance)
