"""Logit rows of a step: those to sample from, and those of prompt log probabilities."""

from collections.abc import Sequence
from dataclasses import dataclass

from workers.engine.runner import Chunk


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptRanks:
    """Positions of a prompt, the tokens that follow them, and how many alternatives to these are reported."""

    positions: range
    token_ids: Sequence[int]
    num_top: int


def prompt_ranks_of(chunk: Chunk) -> PromptRanks | None:
    """The prompt tokens after a chunk's positions whose log probabilities its request asked for; None for none."""
    num_top, positions = chunk.sampling.prompt_logprobs, range(chunk.start, min(chunk.end, chunk.num_prompt - 1))
    if num_top is None or not positions:
        return None
    token_ids = chunk.tokens[positions.start + 1 : positions.stop + 1]
    return PromptRanks(positions=positions, token_ids=token_ids, num_top=num_top)


def wanted_positions(chunk: Chunk) -> range:
    """Positions of a chunk whose logits are computed: those it wants, and those of prompt log probabilities."""
    if chunk.sampling.prompt_logprobs is not None and chunk.start < chunk.num_prompt - 1:
        return range(chunk.start, chunk.end if chunk.num_logits else min(chunk.end, chunk.num_prompt - 1))
    return range(chunk.logits_from, chunk.end)


def sampled_rows(chunks: list[Chunk], wanted: list[range]) -> list[int]:
    """Rows of the computed logits from which a token is sampled."""
    rows: list[int] = []
    end = 0
    for chunk, positions in zip(chunks, wanted, strict=True):
        end += len(positions)
        rows += range(end - chunk.num_logits, end)
    return rows
