"""Sampling parameters: the request fields that every protocol shares, and the engine's parameters made of them.

Source: OpenAI specification of 2026-08-21. `top_k`, `min_p`, `repetition_penalty`, `stop_token_ids`, `ignore_eos` and
`min_tokens` have the names and meanings of vLLM's extra parameters and come through the SDK's `extra_body`.
"""

from collections.abc import Iterable
from typing import Annotated

from pydantic import Field, StringConstraints

from api.protocol.shared.deadline_fields import DatedRequest
from api.protocol.shared.tiers import TieredRequest
from api.protocol.shared.wire import INT64_MAX, Seed, Stop, Temperature, TopK, TopP, few_pairs
from storage.contract import SamplingParams
from storage.errors import InvalidRequest
from storage.model_manifest import GenerationDefaults

MAX_TOP_LOGPROBS = 20
# The engine needs top_p above 0 and min_p below 1. These limits still keep the most likely token.
_MIN_TOP_P = 1e-6
_MAX_MIN_P = 1 - 1e-6
_MAX_BIASES = 1024
_MAX_STOP_IDS = 64

TokenId = Annotated[int, Field(ge=0, le=INT64_MAX)]
TopLogprobs = Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)]
_IdAsKey = Annotated[str, StringConstraints(pattern="^(0|[1-9][0-9]{0,17})$")]
_Bias = Annotated[float, Field(ge=-100, le=100)]
_MinP = Annotated[float, Field(ge=0, le=1)]
_MinTokens = Annotated[int, Field(ge=0, le=INT64_MAX)]
_Penalty = Annotated[float, Field(ge=-2, le=2)]
# Values further from 1 can turn a logit into an infinity.
_RepetitionPenalty = Annotated[float, Field(ge=0.01, le=100)]


class SamplingRequest(TieredRequest, DatedRequest):
    """Sampling fields of a create request. Absent and null mean the same."""

    frequency_penalty: _Penalty | None = None
    ignore_eos: bool | None = None
    logit_bias: Annotated[dict[_IdAsKey, _Bias], few_pairs(_MAX_BIASES)] | None = None
    min_p: _MinP | None = None
    min_tokens: _MinTokens | None = None
    presence_penalty: _Penalty | None = None
    repetition_penalty: _RepetitionPenalty | None = None
    seed: Seed | None = None
    stop: Stop | None = None
    stop_token_ids: Annotated[list[TokenId], Field(max_length=_MAX_STOP_IDS, fail_fast=True)] | None = None
    temperature: Temperature | None = None
    top_k: TopK | None = None
    top_p: TopP | None = None

    @property
    def num_logprobs(self) -> int | None:
        """Number of alternatives to report for each output token; None means no log probabilities."""
        return None

    @property
    def num_prompt_logprobs(self) -> int | None:
        """Number of alternatives to report for each prompt token."""
        return None


def sampling_of(
    request: SamplingRequest, *, max_tokens: int, seed: int, vocab_size: int, defaults: GenerationDefaults
) -> SamplingParams:
    """The engine's sampling parameters.

    max_tokens: the output token limit after the context length was applied
    seed:       a random seed, used when the request has none
    defaults:   the model's, for fields that the request does not name
    raises:     InvalidRequest for ids outside the vocabulary and for a minimum above the limit
    """
    biases = _biases_of(request, vocab_size)
    stop_token_ids = tuple(request.stop_token_ids or ())
    require_known_ids(stop_token_ids, vocab_size, field="stop_token_ids")
    if (request.min_tokens or 0) > max_tokens:
        raise InvalidRequest(
            f"Invalid 'min_tokens': above the limit of {max_tokens} output tokens.", param="min_tokens"
        )
    return SamplingParams(
        max_tokens=max_tokens,
        temperature=_first(request.temperature, defaults.temperature, 1.0),
        top_p=max(_MIN_TOP_P, _first(request.top_p, defaults.top_p, 1.0)),
        # -1 and 0 are both off, as in open servers.
        top_k=max(0, int(_first(request.top_k, defaults.top_k, 0))),
        min_p=min(_MAX_MIN_P, _first(request.min_p, defaults.min_p, 0.0)),
        presence_penalty=_first(request.presence_penalty, None, 0.0),
        frequency_penalty=_first(request.frequency_penalty, None, 0.0),
        repetition_penalty=_first(request.repetition_penalty, defaults.repetition_penalty, 1.0),
        logit_bias=biases,
        seed=seed if request.seed is None else request.seed,
        stop=tuple(request.stop or ()),
        stop_token_ids=stop_token_ids,
        ignore_eos=request.ignore_eos or False,
        min_tokens=request.min_tokens or 0,
        logprobs=request.num_logprobs,
        prompt_logprobs=request.num_prompt_logprobs,
    )


def require_known_ids(ids: Iterable[int], vocab_size: int, *, field: str) -> None:
    """Raise InvalidRequest with `field` as its param when an id is outside the vocabulary."""
    if max(ids, default=0) >= vocab_size:
        raise InvalidRequest(f"Invalid '{field}': token ids must be below {vocab_size}.", param=field)


def _first(asked: float | None, of_model: float | None, default: float) -> float:
    """The first that is named."""
    if asked is not None:
        return float(asked)
    return default if of_model is None else float(of_model)


def _biases_of(request: SamplingRequest, vocab_size: int) -> tuple[tuple[int, float], ...]:
    if not request.logit_bias:
        return ()
    biases = tuple((int(key), float(bias)) for key, bias in request.logit_bias.items())
    require_known_ids((token_id for token_id, _ in biases), vocab_size, field="logit_bias")
    return biases
