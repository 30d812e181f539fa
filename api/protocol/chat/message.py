"""A message of a chat in a request, with tool calls of the assistant and results of tools."""

from typing import Annotated, Self

from pydantic import model_validator

from api.protocol.chat.call_fields import ChatCalls
from api.protocol.shared.content import ChatContent, one_of, text_of
from api.protocol.shared.wire import Name, Refused, Wire, fault, only

_ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})
_NOT_A_ROLE = "names a role that is not supported here; use system, developer, user, assistant or tool"


class ChatMessage(Wire):
    """A message of a chat.

    name: of a participant; of a tool's message that of the tool, which its call says too
    """

    role: Annotated[str, one_of(_ROLES, _NOT_A_ROLE)]
    content: ChatContent | None = None
    name: Name | None = None
    annotations: Annotated[object, only([])] = None
    audio: Refused = None
    function_call: Refused = None
    parsed: Refused = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    refusal: Refused = None
    tool_call_id: Name | None = None
    tool_calls: ChatCalls | None = None

    @model_validator(mode="after")
    def _has_calls_only_as_an_answer(self) -> Self:
        if self.tool_calls and self.role != "assistant":
            raise fault("tool_calls", "only messages of the assistant have some")
        return self

    @model_validator(mode="after")
    def _answers_a_call_only_as_a_tool(self) -> Self:
        if (self.tool_call_id is None) == (self.role == "tool"):
            raise fault("tool_call_id", "messages with the role 'tool' need one, and no others have one")
        return self

    @model_validator(mode="after")
    def _has_content(self) -> Self:
        if self.content is None and not self.tool_calls and not self.thought:
            raise fault("content", "only a message with tool calls may have none")
        return self

    @model_validator(mode="after")
    def _has_one_thought_and_only_as_an_answer(self) -> Self:
        if self.thought and self.role != "assistant":
            raise fault("reasoning_content", "only messages of the assistant have some")
        if self.reasoning and self.reasoning_content and self.reasoning != self.reasoning_content:
            raise fault("reasoning_content", "it differs from 'reasoning', which is another name of it")
        return self

    @property
    def thought(self) -> str:
        """The thought before the answer, under either of its names."""
        return self.reasoning_content or self.reasoning or ""

    @property
    def text(self) -> str:
        """The message's text."""
        return text_of(self.content)
