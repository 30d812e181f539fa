"""Maps chunks to rows of logits and back: one row for each position whose logits a chunk wants."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from storage.contract import SamplingParams
from workers.engine.runner import Chunk, Ranked, StepOutput
from workers.model.sampling.sampled import SampleResults
from workers.model.sampling.sampling_rows import SamplingRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prefix:
    """A sequence up to a position before its end, as a request for the token that follows there."""

    sequence_id: str
    tokens: Sequence[int]
    num_prompt: int
    sampling: SamplingParams
    is_pending: bool = False
    mask: None = None


def requests_of(chunks: Sequence[Chunk]) -> list[SamplingRequest]:
    """A request for each token to sample, chunk by chunk; the last position of a sequence is the chunk itself."""
    requests: list[SamplingRequest] = []
    for chunk in chunks:
        for position in range(chunk.logits_from, chunk.end):
            requests.append(chunk if position + 1 >= len(chunk.tokens) else _prefix_of(chunk, position))
    return requests


def _prefix_of(chunk: Chunk, position: int) -> _Prefix:
    return _Prefix(
        # Another name, because the sampler keeps counts of a sequence's tokens under it.
        sequence_id=f"{chunk.sequence_id}@{position}",
        tokens=chunk.tokens[: position + 1],
        num_prompt=min(chunk.num_prompt, position + 1),
        sampling=chunk.sampling,
    )


def output_of(
    counts: Sequence[int], results: SampleResults | None, prompt_logprobs: dict[int, list[Ranked]]
) -> StepOutput:
    """What a step yielded, by chunk.

    counts: rows of logits that each chunk wanted
    samples:  what was sampled from all rows, in order; None where there are none
    """
    if results is None:
        return StepOutput(token_ids=[()] * len(counts), prompt_logprobs=prompt_logprobs)
    rows = iter(results.token_ids)
    token_ids = [_whole(tuple(islice(rows, count))) for count in counts]
    return StepOutput(
        token_ids=token_ids,
        logprobs=_by_chunk(counts, results.logprobs) if results.logprobs else {},
        prompt_logprobs=prompt_logprobs,
    )


def _whole(token_ids: tuple[int | None, ...]) -> tuple[int, ...] | None:
    return None if None in token_ids else token_ids  # type: ignore[return-value]  # none of them is None


def _by_chunk(counts: Sequence[int], logprobs: dict[int, Ranked]) -> dict[int, tuple[Ranked, ...]]:
    by_chunk = {}
    row = 0
    for place, count in enumerate(counts):
        ranked = tuple(logprobs[one] for one in range(row, row + count) if one in logprobs)
        if ranked:
            by_chunk[place] = ranked
        row += count
    return by_chunk
