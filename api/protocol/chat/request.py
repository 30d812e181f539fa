"""The create request of Chat Completions.

Source: OpenAI specification of 2026-08-21.
"""

from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from api.protocol.chat.message import ChatMessage
from api.protocol.shared.job_request import ChunkedRequest
from api.protocol.shared.sampling_fields import TopLogprobs
from api.protocol.shared.webhook_fields import WebhookTarget, target_of
from api.protocol.shared.wire import (
    MaxTokens,
    Metadata,
    NumChoices,
    Refused,
    WireRequest,
    fault,
    only,
)
from api.protocol.thinking.thinking_fields import ChatThinkingFields
from api.protocol.tools.tool_requests import ChatToolRequest
from storage.contract import JobKind


class ChatRequest(ChunkedRequest, ChatToolRequest, ChatThinkingFields):
    """The body of `POST /v1/chat/completions`."""

    kind: ClassVar = JobKind.CHAT

    messages: Annotated[list[ChatMessage], Field(min_length=1, fail_fast=True)]
    logprobs: bool | None = None
    max_completion_tokens: MaxTokens | None = None
    max_tokens: MaxTokens | None = None
    n: NumChoices | None = None
    top_logprobs: TopLogprobs | None = None
    webhook: Annotated[WebhookTarget, target_of(JobKind.CHAT)] | None = None

    audio: Refused = None
    function_call: Annotated[object, only("none", "auto")] = None
    functions: Annotated[object, only([])] = None
    modalities: Annotated[object, only(["text"])] = None
    moderation: Refused = None
    prediction: Refused = None
    prompt_cache_options: Annotated[object, only({}, {"mode": "implicit"})] = None
    prompt_cache_retention: Annotated[object, only("in_memory")] = None
    verbosity: Annotated[object, only("medium")] = None
    web_search_options: Refused = None

    @model_validator(mode="after")
    def _has_one_limit(self) -> Self:
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise fault("max_tokens", "'max_tokens' and 'max_completion_tokens' exclude each other")
        return self

    @model_validator(mode="after")
    def _has_logprobs_for_the_top(self) -> Self:
        if self.top_logprobs and not self.logprobs:
            raise fault("top_logprobs", "it needs 'logprobs' to be true")
        return self

    @property
    def num_logprobs(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None

    @property
    def output_limit(self) -> int | None:
        """The output token limit, under either of its names."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens


class MetadataUpdate(WireRequest):
    """The body of `POST /v1/chat/completions/{id}`: the new metadata; null removes all pairs."""

    metadata: Metadata | None
