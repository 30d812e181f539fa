"""What an attention layer looks at, and how it weighs it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionRule:
    """How scores come of queries and keys, and which keys count.

    scale:   what products of queries and keys are multiplied with
    window:  positions that a token sees, itself included; None is all
    softcap: scores are bent to lie within +-softcap; None leaves them
    """

    scale: float
    window: int | None = None
    softcap: float | None = None
