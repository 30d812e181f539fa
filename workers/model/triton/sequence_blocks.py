"""Locations of the keys and values of sequences, as arguments of GPU kernels."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """Some sequences' positions in one layer's cache.

    keys, values: [num_blocks, block_size, num_kv_heads, head_dim], contiguous
    tables:       [num_seqs, max_blocks] int32; entries past a sequence's end are not read. No sequence is longer than
                  its table, and a model's tables are all of one width
    lengths:      [num_seqs] int32, positions of each sequence so far, those of this step included
    """

    keys: Tensor
    values: Tensor
    tables: Tensor
    lengths: Tensor

    @property
    def max_len(self) -> int:
        """Positions that a table has room for."""
        return self.tables.shape[1] * self.keys.shape[1]
