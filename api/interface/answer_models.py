"""Response models of jobs and models for the OpenAPI schema. Answers are built by `api/protocol`, not by these classes.

Fields that OpenAI's SDKs need are required here; `tests/api/test_openapi.py` checks real answers against the schema.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, Field, RootModel

JobStatusName = Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
FinishReasonName = Literal["stop", "length"]


class ErrorDetails(BaseModel):
    """What went wrong: a sentence, OpenAI's error type, the field at fault and a stable code."""

    message: str
    type: str
    param: str | None
    code: str | None


class Error(BaseModel):
    """The body of every error."""

    error: ErrorDetails


class QueueStatusObject(BaseModel):
    """Place of a queued job in its line, and when it is likely to start."""

    position: int
    estimated_start_at: int | None


class TokenLogprob(BaseModel):
    """Log probability of one token."""

    token: str
    logprob: float
    bytes: list[int]


class ContentLogprob(TokenLogprob):
    """Log probability of a token, with the likeliest tokens in its place."""

    top_logprobs: list[TokenLogprob]


class OutputText(BaseModel):
    """A text part of a message."""

    type: Literal["output_text"]
    text: str
    annotations: list[object]
    logprobs: list[ContentLogprob]


class OutputMessage(BaseModel):
    """A message that the model wrote."""

    id: str
    type: Literal["message"]
    status: Literal["in_progress", "completed", "incomplete"]
    role: Literal["assistant"]
    content: list[OutputText]


class InputTokenDetails(BaseModel):
    """How many prompt tokens came from the prefix cache."""

    cached_tokens: int


class ResponseUsage(BaseModel):
    """Token counts of a response."""

    input_tokens: int
    input_tokens_details: InputTokenDetails
    output_tokens: int
    output_tokens_details: dict[str, int]
    total_tokens: int


class ResponseErrorObject(BaseModel):
    """Why a response failed."""

    code: str
    message: str


class IncompleteDetails(BaseModel):
    """Why a response is incomplete."""

    reason: str


class ResponseObject(BaseModel):
    """A response, complete or so far."""

    id: str
    object: Literal["response"]
    created_at: int
    status: JobStatusName
    background: bool
    completed_at: int | None
    error: ResponseErrorObject | None
    incomplete_details: IncompleteDetails | None
    model: str
    output: list[OutputMessage]
    usage: ResponseUsage | None
    metadata: dict[str, str]
    instructions: str | None
    max_output_tokens: int | None
    previous_response_id: str | None
    service_tier: str | None
    store: bool
    temperature: float
    top_p: float
    tokenpost_queue: QueueStatusObject | None = None


class CompletionUsage(BaseModel):
    """Token counts of a chat completion or completion."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: InputTokenDetails
    completion_tokens_details: dict[str, int]


class ChatAnswerMessage(BaseModel):
    """The message of a choice."""

    role: Literal["assistant"]
    content: str | None
    refusal: str | None


class ChatLogprobs(BaseModel):
    """Log probabilities of a choice."""

    content: list[ContentLogprob]


class ChatChoice(BaseModel):
    """One answer of a chat completion."""

    index: int
    message: ChatAnswerMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishReasonName | None


class ChatCompletionObject(BaseModel):
    """A chat completion; `status` is there while it has no answer, `error` when it failed."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: CompletionUsage | None
    metadata: dict[str, str]
    service_tier: str | None
    system_fingerprint: str
    status: JobStatusName | None = None
    error: ErrorDetails | None = None
    tokenpost_queue: QueueStatusObject | None = None


class TextLogprobs(BaseModel):
    """Log probabilities of a completion's tokens."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None
    text_offset: list[int]


class TextChoice(BaseModel):
    """One answer of a completion."""

    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: FinishReasonName | None


class CompletionObject(BaseModel):
    """A completion; `status` is there while it has no answer, `error` when it failed."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChoice]
    usage: CompletionUsage | None
    system_fingerprint: str
    service_tier: str | None = None
    status: JobStatusName | None = None
    error: ErrorDetails | None = None
    tokenpost_queue: QueueStatusObject | None = None


class AsyncCompletionObject(BaseModel):
    """A completion job without an answer, or a receipt."""

    id: str
    object: Literal["async.completion"]
    status: JobStatusName
    created_at: int
    model: str
    error: ErrorDetails | None = None
    tokenpost_queue: QueueStatusObject | None = None


class AsyncCompletionAnswer(RootModel[CompletionObject | AsyncCompletionObject]):
    """The completion, or its job while it has no answer."""


class InputTokenCount(BaseModel):
    """Number of tokens of a prompt."""

    object: Literal["response.input_tokens"]
    input_tokens: int


class DeletedObject(BaseModel):
    """What was erased."""

    id: str
    object: str
    deleted: bool


class ModelObject(BaseModel):
    """A model and whether it can run a job now."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    capabilities: dict[str, bool]
    tool_format: str | None = Field(description="the family whose form the model's tool calls have")
    context_length: int | None = Field(description="null until a worker has served the model")
    status: Literal["ready", "loading", "offline", "failed"]
    status_reason: str | None = Field(description="why the model could not be loaded, where its status is `failed`")


class ModelList(BaseModel):
    """All models."""

    object: Literal["list"]
    data: list[ModelObject]


class InputMessageItem(BaseModel):
    """A message item of a response's input."""

    id: str
    type: Literal["message"]
    role: str
    content: list[dict[str, object]]


class InputFunctionCall(BaseModel):
    """A function call in a response's input."""

    id: str
    type: Literal["function_call"]
    call_id: str
    name: str
    namespace: str | None = None
    arguments: str
    status: str


class InputCustomCall(BaseModel):
    """A custom tool call in a response's input."""

    id: str
    type: Literal["custom_tool_call"]
    call_id: str
    name: str
    namespace: str | None = None
    input: str
    status: str


class InputCallOutput(BaseModel):
    """The result of a tool call in a response's input."""

    id: str
    type: Literal["function_call_output", "custom_tool_call_output"]
    call_id: str
    output: str | list[dict[str, object]]
    status: str


InputItem = Annotated[
    InputMessageItem | InputFunctionCall | InputCustomCall | InputCallOutput, Field(discriminator="type")
]


class StoredMessage(BaseModel):
    """A message of a stored chat completion's input."""

    id: str
    role: str
    content: str | None
    content_parts: list[dict[str, object]] | None = None
    tool_calls: list[dict[str, object]] | None = None
    tool_call_id: str | None = None


class _Page(BaseModel):
    object: Literal["list"]
    first_id: str | None
    last_id: str | None
    has_more: bool


class InputItemList(_Page):
    """A page of input items."""

    data: list[InputItem]


class StoredMessageList(_Page):
    """A page of messages."""

    data: list[StoredMessage]


class ChatCompletionList(_Page):
    """A page of stored chat completions."""

    data: list[ChatCompletionObject]


class Health(BaseModel):
    """Whether the process, or each part that it needs, is there."""

    status: str
    database: str | None = Field(default=None, description="in /readyz only, as the following")
    redis: str | None = None
    worker: str | None = None
    models: dict[str, str] | None = Field(default=None, description="the status of each model")
