"""One attention layer of a model: its shape, and which keys count for a query."""

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionRule:
    """How scores are computed from queries and keys, and which keys count.

    scale:   what products of queries and keys are multiplied with
    window:  positions that a token sees, itself included; None is all
    softcap: scores are bent to lie within +-softcap; None leaves them
    """

    scale: float
    window: int | None = None
    softcap: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerShape:
    """What one attention layer keeps for a token."""

    num_kv_heads: int
    head_dim: int

    @property
    def width(self) -> int:
        """Numbers of one token's keys, and of its values."""
        return self.num_kv_heads * self.head_dim


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionLayer:
    """One attention module and what it asked for.

    window, softcap: as in `AttentionRule`
    """

    module: nn.Module
    shape: LayerShape
    window: int | None
    softcap: float | None
