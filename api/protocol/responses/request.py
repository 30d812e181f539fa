"""The create request of Responses, and the request of its token count.

Source: OpenAI specification of 2026-08-21. Of the sampling fields it has only `temperature`, `top_p` and
`top_logprobs`; the others are our extensions, sent through the SDK's `extra_body`.
"""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from api.protocol.responses.included import INCLUDED_LOGPROBS, INCLUDED_THOUGHTS
from api.protocol.responses.input_items import Input
from api.protocol.shared.content import one_of
from api.protocol.shared.job_request import JobRequest
from api.protocol.shared.sampling_fields import TopLogprobs
from api.protocol.shared.tiers import TieredRequest
from api.protocol.shared.validation_messages import FIELD, TAG, UNSUPPORTED
from api.protocol.shared.webhook_fields import WebhookTarget, target_of
from api.protocol.shared.wire import MaxTokens, Name, Refused, Wire, fault, only
from api.protocol.structured.constraints import Constraint
from api.protocol.structured.format_fields import (
    FlatSchemaFormat,
    ObjectFormat,
    ResponseTextFormat,
    TextFormat,
    any_object,
)
from api.protocol.thinking.thinking_fields import ResponseThinkingFields
from api.protocol.tools.tool_requests import ResponseToolRequest
from storage.contract import JobKind

_INCLUDED = frozenset({INCLUDED_LOGPROBS, INCLUDED_THOUGHTS})
Included = Annotated[str, one_of(_INCLUDED, "is not supported here yet")]


class TextOptions(Wire):
    """The format of the output text."""

    format: ResponseTextFormat | None = None
    verbosity: Annotated[object, only("medium")] = None


class ConversationReference(Wire):
    """A conversation by its id."""

    id: Name


_BY_ID, _BY_OBJECT = f"{TAG}id", f"{TAG}object"
Conversation = Annotated[
    Annotated[Name, Tag(_BY_ID)] | Annotated[ConversationReference, Tag(_BY_OBJECT)],
    Discriminator(
        lambda value: _BY_ID if isinstance(value, str) else _BY_OBJECT,
        custom_error_type="shape",
        custom_error_message="expected the id of a conversation or an object with it",
    ),
]


_WINDOWS_S = {"soonest": None, "2h": 2 * 3600, "8h": 8 * 3600}
_WINDOW = "is not one of 'soonest', '2h' and '8h'"


class BackgroundOptions(Wire):
    """When a background response has to be there.

    completion_window: the latest end; a response that is not there by then fails with `expired`
    continuation_id:   responses of one id start in the order in which they were accepted, each after the one before
    """

    completion_window: Annotated[str, one_of(frozenset(_WINDOWS_S), _WINDOW)] | None = None
    continuation_id: Name | None = None


class ResponseStreamOptions(Wire):
    """Stream options of Responses. We send no obfuscation padding."""

    include_obfuscation: Annotated[object, only(False)] = None


class ResponseRequest(JobRequest, ResponseToolRequest, ResponseThinkingFields):
    """The body of `POST /v1/responses`."""

    kind: ClassVar = JobKind.RESPONSE

    input: Input | None = None
    background: bool | None = None
    background_options: BackgroundOptions | None = None
    conversation: Conversation | None = None
    include: Annotated[list[Included], Field(max_length=16, fail_fast=True)] | None = None
    instructions: str | None = None
    max_output_tokens: MaxTokens | None = None
    previous_response_id: Name | None = None
    stream_options: ResponseStreamOptions | None = None
    text: TextOptions | None = None
    top_logprobs: TopLogprobs | None = None
    truncation: Literal["auto", "disabled"] | None = None
    webhook: Annotated[WebhookTarget, target_of(JobKind.RESPONSE)] | None = None

    access_programs: Refused = None
    context_management: Annotated[object, only([])] = None
    image: Refused = None
    max_tool_calls: Refused = None
    moderation: Refused = None
    prompt: Refused = None
    prompt_cache_options: Annotated[object, only({}, {"mode": "implicit"})] = None
    prompt_cache_retention: Annotated[object, only("in_memory")] = None

    @model_validator(mode="after")
    def _has_input(self) -> Self:
        is_first = self.previous_response_id is None and self.conversation is None
        if is_first and not self.input and self.input != "":
            raise fault("input", "one of 'input', 'previous_response_id' or 'conversation' must be provided")
        return self

    @model_validator(mode="after")
    def _goes_on_with_one(self) -> Self:
        if self.previous_response_id is not None and self.conversation is not None:
            raise fault("conversation", "it cannot be combined with 'previous_response_id'")
        if self.background_options is not None:
            self._has_options_in_background_only(self.background_options)
        return self

    def _has_options_in_background_only(self, options: BackgroundOptions) -> None:
        asked = next(iter(options.model_dump(exclude_none=True)), None)
        if asked is None:
            return
        is_standard = self.service_tier in (None, "auto", "default") and self.priority is None
        if not self.background or self.stream or not is_standard:
            sentence = "needs background: true, no stream, and neither another service_tier nor a priority"
            raise PydanticCustomError(UNSUPPORTED, sentence, {FIELD: f"background_options.{asked}"})

    @model_validator(mode="after")
    def _includes_the_top(self) -> Self:
        if self.top_logprobs and self.num_logprobs is None:
            raise fault("top_logprobs", "it needs 'message.output_text.logprobs' in 'include'")
        return self

    def _formats(self) -> list[str]:
        if not self.names_format:
            return []
        asked = None if self.text is None else self.text.format
        return ["text.format"] * (not isinstance(asked, TextFormat | None)) + super()._formats()

    @property
    def answer_constraint(self) -> Constraint | None:
        if not self.names_format:
            return None
        asked = None if self.text is None else self.text.format
        if isinstance(asked, FlatSchemaFormat):
            return asked.constraint("text.format.schema")
        if isinstance(asked, ObjectFormat):
            return any_object("text.format")
        return super().answer_constraint

    @property
    def num_logprobs(self) -> int | None:
        return (self.top_logprobs or 0) if INCLUDED_LOGPROBS in (self.include or ()) else None

    @property
    def signs_thoughts(self) -> bool:
        """Whether reasoning items have `encrypted_content`."""
        return INCLUDED_THOUGHTS in (self.include or ())

    @property
    def previous_id(self) -> str | None:
        return self.previous_response_id

    @property
    def conversation_id(self) -> str | None:
        reference = self.conversation
        return reference.id if isinstance(reference, ConversationReference) else reference

    @property
    def is_truncated(self) -> bool:
        return self.truncation == "auto"

    @property
    def window_s(self) -> int | None:
        options = self.background_options
        return None if options is None else _WINDOWS_S[options.completion_window or "soonest"]

    @property
    def continuation_id(self) -> str | None:
        return None if self.background_options is None else self.background_options.continuation_id

    @property
    def is_background(self) -> bool:
        return self.background or False


class ResponseMove(TieredRequest):
    """The body of `POST /v1/responses/{id}`: the tier or the priority that a queued response gets."""

    @model_validator(mode="after")
    def _has_one(self) -> Self:
        if self.service_tier is None and self.priority is None:
            raise fault("service_tier", "one of 'service_tier' or 'priority' must be provided")
        return self


class InputTokensRequest(ResponseRequest):
    """The body of `POST /v1/responses/input_tokens`: as for create; fields without effect on the prompt are ignored."""

    personality: Refused = None
