"""Sampling requests: one for each row of logits."""

from collections.abc import Sequence
from typing import Protocol

from storage.contract import SamplingParams
from workers.constraint.row_masks import RowMask

# Below this the likeliest token wins but for ties, and a division by it would lose all digits.
MIN_TEMPERATURE = 0.01
# Far above any use, and what is infinitely unlikely stays so.
MAX_TEMPERATURE = 1e30
# Rates beyond these would overflow to infinities whose difference is not a number.
_MAX_RATE = 1e30


class SamplingRequest(Protocol):
    """A sequence whose next token is to be sampled; a sampled Chunk is one.

    tokens:     its ids so far, of which only `num_prompt` and more are output; read during `prepare` only
    is_pending: whether one more token, sampled by the launch before, is on the device and not among `tokens`
    mask:       the tokens that may be sampled, None for all; asked during `prepare` only
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
    @property
    def mask(self) -> RowMask | None: ...


def num_known(request: SamplingRequest) -> int:
    """Tokens of the sequence before the one to sample: the absolute position of that one."""
    return len(request.tokens) + request.is_pending


def is_noisy(params: SamplingParams) -> bool:
    """Whether the token is sampled by chance rather than the likeliest."""
    return params.temperature >= MIN_TEMPERATURE and params.top_k != 1


def usable_temperature(params: SamplingParams) -> float:
    """The temperature of a noisy row, bounded so that no quotient is undefined."""
    return min(params.temperature, MAX_TEMPERATURE)


def is_filtered(params: SamplingParams) -> bool:
    """Whether some tokens may be too unlikely to be sampled at all."""
    return params.top_k > 0 or params.top_p < 1.0 or params.min_p > 0.0


def is_penalised(params: SamplingParams) -> bool:
    """Whether tokens that the sequence holds already become less likely, or more."""
    return params.repetition_penalty != 1.0 or params.presence_penalty != 0.0 or params.frequency_penalty != 0.0


def penalty_rates(params: SamplingParams) -> tuple[float, float, float]:
    """Repetition, presence and frequency penalty, bounded."""
    repetition = max(1 / _MAX_RATE, min(_MAX_RATE, params.repetition_penalty))
    return repetition, _bounded(params.presence_penalty), _bounded(params.frequency_penalty)


def bounded_biases(params: SamplingParams) -> list[float]:
    """What is added to the logits of `logit_bias`, bounded."""
    return [_bounded(bias) for _, bias in params.logit_bias]


def masked_ids(request: SamplingRequest, eos_token_ids: Sequence[int], vocab_size: int) -> list[int]:
    """Tokens that would end the sequence before it may; one may come twice. A row's own mask knows them already."""
    params = request.sampling
    if (
        request.mask is not None
        or not params.min_tokens
        or num_known(request) - request.num_prompt >= params.min_tokens
    ):
        return []
    eos = () if params.ignore_eos else eos_token_ids
    return [token_id for token_id in (*eos, *params.stop_token_ids) if 0 <= token_id < vocab_size]


def ranked_rows_of(requests: Sequence[SamplingRequest]) -> dict[int, int]:
    """Rows that tell log probabilities, and of how many of the likeliest tokens."""
    return {
        row: request.sampling.logprobs for row, request in enumerate(requests) if request.sampling.logprobs is not None
    }


def _bounded(rate: float) -> float:
    return max(-_MAX_RATE, min(_MAX_RATE, rate))
