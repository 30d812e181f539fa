"""Completions on the wire: the create body.

Source: OpenAI specification of 2026-08-21; `store`, `metadata` and `top_k` are ours, as every call is a stored job.
"""

from typing import Annotated, Self

from pydantic import Discriminator, Field, Tag, model_validator

from api.protocol.complaints import TAG
from api.protocol.wire import (
    INT64_MAX,
    MAX_CHOICES,
    Label,
    MaxTokens,
    Metadata,
    Name,
    NumChoices,
    Refused,
    SafetyIdentifier,
    Seed,
    ServiceTier,
    Stop,
    StreamOptions,
    Temperature,
    TopK,
    TopP,
    WireRequest,
    fault,
    only,
)

_TEXT, _TEXTS, _IDS, _LISTS = (TAG + name for name in ("text", "texts", "ids", "lists"))
_PROMPT_SHAPE = "expected a string, an array of strings, an array of token ids or an array of arrays of token ids"

TokenId = Annotated[int, Field(ge=0, le=INT64_MAX)]
TokenIds = Annotated[list[TokenId], Field(min_length=1, fail_fast=True)]


def _tag_of(prompt: object) -> str | None:
    if isinstance(prompt, str):
        return _TEXT
    if not isinstance(prompt, list):
        return None
    match prompt[:1]:
        case [int()]:
            return _IDS
        case [list()]:
            return _LISTS
        case _:
            return _TEXTS


Prompt = Annotated[
    Annotated[str, Tag(_TEXT)]
    | Annotated[list[str], Field(min_length=1, max_length=MAX_CHOICES), Tag(_TEXTS)]
    | Annotated[TokenIds, Tag(_IDS)]
    | Annotated[list[TokenIds], Field(min_length=1, max_length=MAX_CHOICES), Tag(_LISTS)],
    Discriminator(_tag_of, custom_error_type="shape", custom_error_message=_PROMPT_SHAPE),
]


class CompletionRequest(WireRequest):
    """The body of `POST /v1/completions`."""

    model: Name
    prompt: Prompt
    echo: bool | None = None
    max_tokens: MaxTokens | None = None
    metadata: Metadata | None = None
    n: NumChoices | None = None
    prompt_cache_key: Label | None = None
    safety_identifier: SafetyIdentifier | None = None
    seed: Seed | None = None
    service_tier: ServiceTier = None
    stop: Stop | None = None
    store: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Temperature | None = None
    top_k: TopK | None = None
    top_p: TopP | None = None
    user: Label | None = None

    best_of: Annotated[object, only(1)] = None
    frequency_penalty: Annotated[object, only(0)] = None
    logit_bias: Annotated[object, only({})] = None
    logprobs: Refused = None
    presence_penalty: Annotated[object, only(0)] = None
    suffix: Refused = None

    @model_validator(mode="after")
    def _has_few_choices(self) -> Self:
        if len(self.prompts) * (self.n or 1) > MAX_CHOICES:
            raise fault("n", "the number of prompts times 'n' must be at most 128")
        return self

    @property
    def prompts(self) -> list[str] | list[list[int]]:
        """The prompts as a list, whatever shape they were sent in."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if isinstance(self.prompt[0], int):
            return [self.prompt]
        return self.prompt
