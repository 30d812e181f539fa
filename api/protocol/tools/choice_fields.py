"""Wire types of `tool_choice`, in the forms of Chat and of Responses."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import PydanticCustomError

from api.protocol.shared.validation_messages import FIELD, TAG, UNSUPPORTED
from api.protocol.shared.wire import Wire
from api.protocol.tools.tool_fields import MAX_TOOLS, ToolName

_SHAPE = "expected none, auto, required or an object with the 'type' function, custom or allowed_tools"
_NOT_SUPPORTED = "names a kind of choice that is not supported here"
_KINDS = ("word", "function", "custom", "allowed_tools", "other")
_WORD, _FUNCTION, _CUSTOM, _ALLOWED, _OTHER = (f"{TAG}{kind}" for kind in _KINDS)


class NamedChoice(Wire):
    """One tool, or all of a namespace, in the form of Responses."""

    type: Literal["function", "custom", "namespace"]
    name: ToolName
    namespace: ToolName | None = None


class _Name(Wire):
    name: ToolName


class ChatFunctionChoice(Wire):
    """One function, in the form of Chat."""

    type: Literal["function"]
    function: _Name

    @property
    def flat(self) -> NamedChoice:
        """The same in the form of Responses."""
        return NamedChoice(type="function", name=self.function.name)


class ChatCustomChoice(Wire):
    """One custom tool, in the form of Chat."""

    type: Literal["custom"]
    custom: _Name

    @property
    def flat(self) -> NamedChoice:
        """The same in the form of Responses."""
        return NamedChoice(type="custom", name=self.custom.name)


def _refuse(_value: object) -> object:
    raise PydanticCustomError(UNSUPPORTED, _NOT_SUPPORTED, {FIELD: "type"})


# Stand in unions for all other kinds of choices.
_OtherChatChoice = Annotated[SkipJsonSchema[ChatFunctionChoice], BeforeValidator(_refuse)]
_OtherChoice = Annotated[SkipJsonSchema[NamedChoice], BeforeValidator(_refuse)]


def _tagged(*known: str) -> Discriminator:
    def tag_of(value: object) -> str | None:
        if isinstance(value, str):
            return _WORD if _WORD in known else None
        kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
        return None if not isinstance(kind, str) else f"{TAG}{kind}" if f"{TAG}{kind}" in known else _OTHER

    return Discriminator(tag_of, custom_error_type="shape", custom_error_message=_SHAPE)


_ChatMember = Annotated[
    Annotated[ChatFunctionChoice, Tag(_FUNCTION)]
    | Annotated[ChatCustomChoice, Tag(_CUSTOM)]
    | Annotated[_OtherChatChoice, Tag(_OTHER)],
    _tagged(_FUNCTION, _CUSTOM),
]


class _ChatAllowed(Wire):
    mode: Literal["auto", "required"]
    tools: Annotated[list[_ChatMember], Field(min_length=1, max_length=MAX_TOOLS, fail_fast=True)]


class AllowedTools(Wire):
    """Some of the declared tools, in the form of Responses."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: Annotated[list[NamedChoice], Field(min_length=1, max_length=MAX_TOOLS, fail_fast=True)]


class ChatAllowedTools(Wire):
    """Some of the declared tools, in the form of Chat."""

    type: Literal["allowed_tools"]
    allowed_tools: _ChatAllowed

    @property
    def flat(self) -> AllowedTools:
        """The same in the form of Responses."""
        tools = [one.flat for one in self.allowed_tools.tools]
        return AllowedTools(type="allowed_tools", mode=self.allowed_tools.mode, tools=tools)


ChoiceWord = Literal["none", "auto", "required"]
_shape = _tagged(_WORD, _FUNCTION, _CUSTOM, _ALLOWED)
ChatChoice = Annotated[
    Annotated[ChoiceWord, Tag(_WORD)]
    | Annotated[ChatFunctionChoice, Tag(_FUNCTION)]
    | Annotated[ChatCustomChoice, Tag(_CUSTOM)]
    | Annotated[ChatAllowedTools, Tag(_ALLOWED)]
    | Annotated[_OtherChatChoice, Tag(_OTHER)],
    _shape,
]
ResponseChoice = Annotated[
    Annotated[ChoiceWord, Tag(_WORD)]
    | Annotated[NamedChoice, Tag(_FUNCTION)]
    | Annotated[NamedChoice, Tag(_CUSTOM)]
    | Annotated[AllowedTools, Tag(_ALLOWED)]
    | Annotated[_OtherChoice, Tag(_OTHER)],
    _shape,
]
