"""Wire types of the items in the input of a response: messages, tool calls and their results.

An item of another type is refused by its type; none is left out in silence.
"""

from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from api.protocol.shared.content import ItemContent, ResultContent, one_of, shape
from api.protocol.shared.validation_messages import TAG
from api.protocol.shared.wire import Name, Refused, Wire, fault, only

_TEXT, _ITEMS = f"{TAG}text", f"{TAG}items"
_INPUT_SHAPE = "expected a string or an array of items"
_NOT_AN_ITEM = (
    "names an item that is not supported here: messages, reasoning, function calls, custom tool calls and their "
    "outputs are"
)
ItemStatus = Literal["in_progress", "completed", "incomplete"]


class InputMessage(Wire):
    """A message item; `type` may be absent."""

    type: Annotated[str, one_of(frozenset({"message"}), _NOT_AN_ITEM)] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: ItemContent
    id: Name | None = None
    status: ItemStatus | None = None
    phase: Literal["commentary", "final_answer"] | None = None

    @model_validator(mode="after")
    def _has_a_phase_only_as_an_answer(self) -> Self:
        if self.phase is not None and self.role != "assistant":
            raise fault("phase", "only messages of the assistant have one")
        return self


class _Call(Wire):
    """What both types of calls have. Calls of programs are not supported."""

    call_id: Name
    name: Name
    namespace: Name | None = None
    id: Name | None = None
    status: ItemStatus | None = None
    async_: Annotated[object, Field(alias="async"), only(False)] = None
    caller: Annotated[object, only({"type": "direct"})] = None


class FunctionCallItem(_Call):
    """A call of a function.

    arguments:        the text of a JSON object
    parsed_arguments: of an SDK that sends its own objects back; `arguments` says the same
    """

    type: Literal["function_call"]
    arguments: str | None = None
    parsed_arguments: object = None


class CustomCallItem(_Call):
    """A call of a custom tool, with plain text."""

    type: Literal["custom_tool_call"]
    input: str


class CallOutput(Wire):
    """The result of a call."""

    type: Literal["function_call_output", "custom_tool_call_output"]
    call_id: Name
    output: ResultContent
    name: Refused = None
    namespace: Refused = None
    id: Name | None = None
    status: ItemStatus | None = None
    caller: Annotated[object, only({"type": "direct"})] = None


class ThoughtPart(Wire):
    """A part of a thought, or of a summary of one."""

    type: Literal["reasoning_text", "summary_text"]
    text: str


class ReasoningItem(Wire):
    """A thought of an earlier turn: its text, or the signed form of it."""

    type: Literal["reasoning"]
    id: Name | None = None
    summary: list[ThoughtPart] | None = None
    content: list[ThoughtPart] | None = None
    encrypted_content: str | None = None
    status: ItemStatus | None = None

    @model_validator(mode="after")
    def _has_a_text(self) -> Self:
        if not (self.content or self.encrypted_content or self.summary):
            raise fault("content", "a reasoning item needs its content or its encrypted_content")
        return self


_MESSAGE = f"{TAG}message"
_TAGS = {
    "reasoning": f"{TAG}reasoning",
    "function_call": f"{TAG}call",
    "custom_tool_call": f"{TAG}custom",
    "function_call_output": f"{TAG}output",
    "custom_tool_call_output": f"{TAG}output",
}


def _tag_of(item: object) -> str:
    kind = item.get("type") if isinstance(item, dict) else None
    # Messages refuse other types.
    return _TAGS.get(kind, _MESSAGE) if isinstance(kind, str) else _MESSAGE


InputItem = Annotated[
    Annotated[InputMessage, Tag(_MESSAGE)]
    | Annotated[ReasoningItem, Tag(_TAGS["reasoning"])]
    | Annotated[FunctionCallItem, Tag(_TAGS["function_call"])]
    | Annotated[CustomCallItem, Tag(_TAGS["custom_tool_call"])]
    | Annotated[CallOutput, Tag(_TAGS["function_call_output"])],
    Discriminator(_tag_of),
]
Input = Annotated[
    Annotated[str, Tag(_TEXT)] | Annotated[list[InputItem], Field(fail_fast=True), Tag(_ITEMS)],
    shape(_TEXT, _ITEMS, _INPUT_SHAPE),
]
