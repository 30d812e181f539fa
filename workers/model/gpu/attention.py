"""A layer's attention over block tables that lie on the device."""

import torch
from torch import Tensor

from workers.model.blocks import Blocks
from workers.model.cache import LayerCache
from workers.model.gpu.kernels import Kernels
from workers.model.gpu.tables import StepTables
from workers.model.rule import AttentionRule


class TableStage:
    """Holds what all layers of one model read of the step that is being computed.

    slots: the tables' slots as int64
    """

    __slots__ = ("slots", "tables")

    def __init__(self) -> None:
        self.tables: StepTables
        self.slots: Tensor


class TableAttention:
    """One layer: stores the step's keys and values, then looks at the sequences' blocks.

    window, softcap: as in `workers.model.attention.BlockAttention`
    """

    def __init__(
        self, cache: LayerCache, stage: TableStage, kernels: Kernels, *, window: int | None, softcap: float | None
    ) -> None:
        self._cache = cache
        self._stage = stage
        self._kernels = kernels
        self._window = window
        self._softcap = softcap

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
        """As `BlockAttention.attend`."""
        tables, cache = self._stage.tables, self._cache
        rule = AttentionRule(
            scale=query.shape[-1] ** -0.5 if scale is None else scale, window=self._window, softcap=self._softcap
        )
        queries, new_keys, new_values = (rows[0].transpose(0, 1) for rows in (query, key, value))
        self._kernels.store(new_keys, new_values, cache.keys, cache.values, self._stage.slots)
        if not tables.num_spans:
            return self._decode(queries, tables, rule).unsqueeze(0)
        spans = self._attend_spans(queries[tables.num_decode :], tables, rule)
        if not tables.num_decode:
            return spans.unsqueeze(0)
        decoded = self._decode(queries[: tables.num_decode], tables, rule)
        return torch.cat([decoded, spans]).unsqueeze(0)

    def _decode(self, queries: Tensor, tables: StepTables, rule: AttentionRule) -> Tensor:
        return self._kernels.decode(queries, self._blocks(tables, slice(tables.num_decode)), rule)

    def _attend_spans(self, queries: Tensor, tables: StepTables, rule: AttentionRule) -> Tensor:
        blocks = self._blocks(tables, slice(tables.num_decode, None))
        return self._kernels.attend(queries, blocks, tables.begins, rule, max_query_len=tables.max_query_len)

    def _blocks(self, tables: StepTables, rows: slice) -> Blocks:
        return Blocks(
            keys=self._cache.keys, values=self._cache.values, tables=tables.tables[rows], lengths=tables.lengths[rows]
        )
