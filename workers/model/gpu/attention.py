"""A layer's attention over block tables that lie on the device, by itself or as one operation of a compiled model."""

from dataclasses import dataclass

import torch
from torch import Tensor

from workers.model.architecture.attention_layer import AttentionRule
from workers.model.gpu.kernels import Kernels, kernels_named
from workers.model.gpu.step_tables import StepTables
from workers.model.torch.cache import LayerCache
from workers.model.triton.sequence_blocks import Blocks


class TableStage:
    """Holds the tables of the current step, which all layers of one model read."""

    __slots__ = ("tables",)

    def __init__(self) -> None:
        self.tables: StepTables


class TableAttention:
    """One layer: stores the step's keys and values, then looks at the sequences' blocks.

    window, softcap: as in `workers.model.torch.block_attention.BlockAttention`
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
        keys, values, tables = self._cache.keys, self._cache.values, self._stage.tables
        rule = AttentionRule(
            scale=query.shape[-1] ** -0.5 if scale is None else scale, window=self._window, softcap=self._softcap
        )
        if not torch.compiler.is_compiling():
            return _Layer(kernels=self._kernels, keys=keys, values=values, rule=rule).attend(tables, query, key, value)
        written, numbers = (keys, values), (rule.scale, rule.window, rule.softcap)
        seen: Tensor = _attend(
            query, key, value, *written, tables.buffer, tables.measures, self._kernels.name, *numbers
        )
        return seen

    def sized_tensors(self) -> list[Tensor]:
        """What a step reads here whose first dimension may be of any size."""
        return [self._cache.keys, self._cache.values, self._stage.tables.buffer]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layer:
    kernels: Kernels
    keys: Tensor
    values: Tensor
    rule: AttentionRule

    def attend(self, tables: StepTables, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        queries, new_keys, new_values = (rows[0].transpose(0, 1) for rows in (query, key, value))
        self.kernels.store(new_keys, new_values, self.keys, self.values, tables.slots)
        num_decode = tables.num_decode
        if not tables.num_spans:
            return self._decode(queries, tables).unsqueeze(0)
        spans = self._attend_spans(queries[num_decode:], tables)
        if not num_decode:
            return spans.unsqueeze(0)
        return torch.cat([self._decode(queries[:num_decode], tables), spans]).unsqueeze(0)

    def _decode(self, queries: Tensor, tables: StepTables) -> Tensor:
        return self.kernels.decode(queries, self._blocks(tables, slice(tables.num_decode)), self.rule)

    def _attend_spans(self, queries: Tensor, tables: StepTables) -> Tensor:
        blocks = self._blocks(tables, slice(tables.num_decode, None))
        max_query_len = tables.shape.max_query_len
        return self.kernels.attend(queries, blocks, tables.begins, self.rule, max_query_len=max_query_len)

    def _blocks(self, tables: StepTables, rows: slice) -> Blocks:
        return Blocks(keys=self.keys, values=self.values, tables=tables.tables[rows], lengths=tables.lengths[rows])


@torch.library.custom_op("tokenpost::attend", mutates_args=("keys", "values"))
def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    keys: Tensor,
    values: Tensor,
    buffer: Tensor,
    measures: Tensor,
    kernels: str,
    scale: float,
    window: int | None,
    softcap: float | None,
) -> Tensor:
    """A layer's attention as one operation that is opaque to the compiler, so that one graph serves every step.

    query, key, value: as in `BlockAttention.attend`
    keys, values:      of the layer's cache; written
    buffer, measures:  of the step's StepTables
    """
    rule = AttentionRule(scale=scale, window=window, softcap=softcap)
    layer = _Layer(kernels=kernels_named(kernels), keys=keys, values=values, rule=rule)
    return layer.attend(StepTables(measures, buffer), query, key, value)


@_attend.register_fake
def _shape_of_seen(query: Tensor, *_: object) -> Tensor:
    return query.new_empty((1, query.shape[2], query.shape[1], query.shape[3]))
