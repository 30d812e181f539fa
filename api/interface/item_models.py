"""Response models of the items of a response for the OpenAPI schema."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field


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
    phase: Literal["commentary"] | None = None
    content: list[OutputText]


class ReasoningText(BaseModel):
    """A text part of a thought."""

    type: Literal["reasoning_text"]
    text: str


class ReasoningItem(BaseModel):
    """A thought that the model wrote."""

    id: str
    type: Literal["reasoning"]
    status: Literal["in_progress", "completed", "incomplete"]
    summary: list[object]
    content: list[ReasoningText]
    encrypted_content: str | None = None


class InputMessageItem(BaseModel):
    """A message item of a response's input."""

    id: str
    type: Literal["message"]
    role: str
    content: list[dict[str, object]]


class FunctionCallItem(BaseModel):
    """A function call."""

    id: str
    type: Literal["function_call"]
    call_id: str
    name: str
    namespace: str | None = None
    arguments: str
    status: str


class CustomCallItem(BaseModel):
    """A custom tool call."""

    id: str
    type: Literal["custom_tool_call"]
    call_id: str
    name: str
    namespace: str | None = None
    input: str
    status: str


class CallOutputItem(BaseModel):
    """The result of a tool call."""

    id: str
    type: Literal["function_call_output", "custom_tool_call_output"]
    call_id: str
    output: str | list[dict[str, object]]
    status: str


InputItem = Annotated[
    InputMessageItem | ReasoningItem | FunctionCallItem | CustomCallItem | CallOutputItem, Field(discriminator="type")
]
OutputItem = Annotated[OutputMessage | ReasoningItem | FunctionCallItem | CustomCallItem, Field(discriminator="type")]
