"""What the engine asks of whoever computes: tokens for a batch, and rows of a cache that come and go."""

import collections.abc
from typing import Protocol

import msgspec

from storage.contract import SamplingParams


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """The part of one sequence that a step computes.

    row:        the sequence's row of the cache; positions before `start` are already in it
    tokens:     all ids of the sequence so far; to compute are `tokens[start:end]`. Valid during the step only
    num_prompt: tokens[num_prompt:] are output
    is_pending: whether the token at `start` is not known yet; never so far
    """

    sequence_id: str
    row: int
    tokens: collections.abc.Sequence[int]
    start: int
    end: int
    num_prompt: int
    sampling: SamplingParams
    is_pending: bool = False

    @property
    def is_sampled(self) -> bool:
        """Whether the chunk reaches the sequence's end, so that its next token is drawn."""
        return self.end == len(self.tokens)


class Ranked(msgspec.Struct, frozen=True):
    """Raw log probabilities at one place: of the token there, and of the likeliest, the likeliest first."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


class Runner(Protocol):
    """A model with a cache of rows. Running sequences always hold the rows 0, 1, 2, ... without a gap."""

    def step(self, chunks: list[Chunk]) -> list[int | None]:
        """The next token of each sampled chunk, in order; None where the logits are not finite.

        A chunk's noise is fixed by (sampling.seed, len(tokens)). May raise: the engine then calls `reset`.
        """

    def release(self, row: int, last: int) -> None:
        """Forget row `row`; row `last`, the highest in use, moves into its place (they may be the same)."""

    def reset(self) -> None:
        """Forget every row after a failed step. Raises when the runner can no longer be used."""
