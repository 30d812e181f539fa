"""What the sampler is asked and what it answers, one row of logits each."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from storage.contract import SamplingParams
from workers.engine.runner import Ranked

# Below this the likeliest token wins but for ties, and a division by it would lose all digits.
MIN_TEMPERATURE = 0.01
# Far above any use, and what is infinitely unlikely stays so.
MAX_TEMPERATURE = 1e30


class DrawRequest(Protocol):
    """A sequence whose next token is to be drawn; a sampled Chunk is one.

    tokens:     its ids so far, of which only `num_prompt` and more are output; read during `prepare` only
    is_pending: whether one more token, drawn by the launch before, is on the device and not among `tokens`
    """

    @property
    def sequence_id(self) -> str: ...
    @property
    def tokens(self) -> Sequence[int]: ...
    @property
    def num_prompt(self) -> int: ...
    @property
    def sampling(self) -> SamplingParams: ...
    @property
    def is_pending(self) -> bool: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Draws:
    """What was drawn for a batch.

    token_ids: None where the row's logits hold NaN or +inf, or where no token is left to draw
    logprobs:  by row, where they were asked for and a token was drawn
    """

    token_ids: list[int | None]
    logprobs: dict[int, Ranked] = field(default_factory=dict)


def num_known(request: DrawRequest) -> int:
    """Tokens of the sequence before the one to draw: the absolute position of that one."""
    return len(request.tokens) + request.is_pending


def is_noisy(params: SamplingParams) -> bool:
    """Whether the token is drawn by chance rather than the likeliest."""
    return params.temperature >= MIN_TEMPERATURE and params.top_k != 1


def usable_temperature(params: SamplingParams) -> float:
    """The temperature of a noisy row, bounded so that no quotient is undefined."""
    return min(params.temperature, MAX_TEMPERATURE)


def is_filtered(params: SamplingParams) -> bool:
    """Whether some tokens may be too unlikely to be drawn at all."""
    return params.top_k > 0 or params.top_p < 1.0 or params.min_p > 0.0


def is_penalised(params: SamplingParams) -> bool:
    """Whether tokens that the sequence holds already become less likely, or more."""
    return params.repetition_penalty != 1.0 or params.presence_penalty != 0.0 or params.frequency_penalty != 0.0
