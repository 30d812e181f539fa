"""Response models of jobs and models for the OpenAPI schema. Answers are built by `api/protocol`, not by these classes.

Fields that OpenAI's SDKs need are required here; `tests/api/test_openapi.py` checks real answers against the schema.
"""

from typing import Literal

from pydantic import BaseModel, Field, RootModel

from api.interface.item_models import ContentLogprob, InputItem, OutputItem

JobStatusName = Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
JsonObject = dict[str, object]
FinishReasonName = Literal["stop", "length", "tool_calls"]


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


class ConversationId(BaseModel):
    """The conversation of a response."""

    id: str


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
    output: list[OutputItem]
    tools: list[JsonObject]
    tool_choice: str | JsonObject
    parallel_tool_calls: bool
    usage: ResponseUsage | None
    metadata: dict[str, str]
    instructions: str | None
    max_output_tokens: int | None
    previous_response_id: str | None
    conversation: ConversationId | None = Field(default=None, description="only in turns of one")
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


class CalledTool(BaseModel):
    """A called function with the text of its arguments, or a custom tool with its input."""

    name: str
    arguments: str | None = None
    input: str | None = None


class ChatToolCall(BaseModel):
    """A tool call of a message."""

    id: str
    type: Literal["function", "custom"]
    function: CalledTool | None = None
    custom: CalledTool | None = None


class ChatAnswerMessage(BaseModel):
    """The message of a choice."""

    role: Literal["assistant"]
    content: str | None
    refusal: str | None
    tool_calls: list[ChatToolCall] | None = None


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
    dimensions: int | None = Field(description="numbers of a vector; null for a model that makes none")
    status: Literal["ready", "loading", "offline", "failed"]
    status_reason: str | None = Field(description="why the model could not be loaded, where its status is `failed`")


class ModelList(BaseModel):
    """All models."""

    object: Literal["list"]
    data: list[ModelObject]


class StoredMessage(BaseModel):
    """A message of a stored chat completion's input."""

    id: str
    role: str
    content: str | None
    content_parts: list[dict[str, object]] | None = None
    tool_calls: list[dict[str, object]] | None = None
    tool_call_id: str | None = None


class Page(BaseModel):
    """What all lists have besides their data."""

    object: Literal["list"]
    first_id: str | None
    last_id: str | None
    has_more: bool


class ResponseList(Page):
    """A page of stored responses."""

    data: list[ResponseObject]


class InputItemList(Page):
    """A page of input items."""

    data: list[InputItem]


class StoredMessageList(Page):
    """A page of messages."""

    data: list[StoredMessage]


class ChatCompletionList(Page):
    """A page of stored chat completions."""

    data: list[ChatCompletionObject]


class Health(BaseModel):
    """Whether the process, or each part that it needs, is there."""

    status: str
    database: str | None = Field(default=None, description="in /readyz only, as the following")
    redis: str | None = None
    worker: str | None = None
    models: dict[str, str] | None = Field(default=None, description="the status of each model")
