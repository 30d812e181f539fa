"""Wire types of declared tools: functions, custom tools and, in Responses, namespaces.

Source: OpenAI specification of 2026-08-21. Chat writes a tool inside an object of its type, Responses flat.
"""

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, Discriminator, Field, StringConstraints, Tag
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import PydanticCustomError

from api.protocol.shared.validation_messages import FIELD, TAG, UNSUPPORTED
from api.protocol.shared.wire import Wire, only

# OpenAI's limit.
MAX_TOOLS = 128
_SHAPE = "expected an object with the 'type' function or custom"
_INPUT_SHAPE = "expected an object with the 'type' text or grammar"
_KNOWN_TYPE = re.compile(r"[a-z0-9_]{1,64}")

ToolName = Annotated[str, StringConstraints(pattern="^[a-zA-Z0-9_-]{1,64}$")]
Description = Annotated[str, StringConstraints(max_length=65_536)]
JsonObject = dict[str, object]


class TextInput(Wire):
    """The format of a custom tool's input that is any text."""

    type: Literal["text"]


class GrammarDefinition(Wire):
    """A grammar or regular expression of a custom tool's input."""

    syntax: Literal["lark", "regex"]
    definition: Annotated[str, StringConstraints(min_length=1)]


class NestedGrammar(Wire):
    """A grammar in the form of Chat."""

    type: Literal["grammar"]
    grammar: GrammarDefinition


class FlatGrammar(GrammarDefinition):
    """A grammar in the form of Responses."""

    type: Literal["grammar"]


def _input_tag(value: object) -> str | None:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return f"{TAG}{kind}" if kind in ("text", "grammar") else None


_input_shape = Discriminator(_input_tag, custom_error_type="shape", custom_error_message=_INPUT_SHAPE)
_Text = Annotated[TextInput, Tag(f"{TAG}text")]
_GRAMMAR = Tag(f"{TAG}grammar")
ChatInputFormat = Annotated[_Text | Annotated[NestedGrammar, _GRAMMAR], _input_shape]
ResponseInputFormat = Annotated[_Text | Annotated[FlatGrammar, _GRAMMAR], _input_shape]


class _Named(Wire):
    """What functions and custom tools have. Of the newer fields only values without effect are taken."""

    name: ToolName
    description: Description | None = None
    async_: Annotated[object, Field(alias="async"), only(False)] = None
    defer_loading: Annotated[object, only(False)] = None
    allowed_callers: Annotated[object, only(["direct"])] = None


class FunctionFields(_Named):
    """A function; `output_schema` is only shown to the model."""

    parameters: JsonObject | None = None
    strict: bool | None = None
    output_schema: JsonObject | None = None


class ChatCustomFields(_Named):
    """A custom tool in the form of Chat."""

    format: ChatInputFormat | None = None


class ChatFunctionTool(Wire):
    """A function in the form of Chat."""

    type: Literal["function"]
    function: FunctionFields


class ChatCustomTool(Wire):
    """A custom tool in the form of Chat."""

    type: Literal["custom"]
    custom: ChatCustomFields


class FunctionTool(FunctionFields):
    """A function in the form of Responses."""

    type: Literal["function"]


class CustomTool(_Named):
    """A custom tool in the form of Responses."""

    type: Literal["custom"]
    format: ResponseInputFormat | None = None


def _refuse(value: dict[str, object]) -> object:
    kind = str(value["type"])
    shown = f" '{kind}'" if _KNOWN_TYPE.fullmatch(kind) else ""
    sentence = "is{kind}, which is no type of tool that is supported here"
    raise PydanticCustomError(UNSUPPORTED, sentence, {FIELD: "type", "kind": shown})


# Stand in unions for all other types, such as tools that OpenAI hosts, and refuse them by name.
_OtherChatTool = Annotated[SkipJsonSchema[ChatFunctionTool], BeforeValidator(_refuse)]
_OtherTool = Annotated[SkipJsonSchema[FunctionTool], BeforeValidator(_refuse)]


def _tagged(*known: str) -> Discriminator:
    def tag_of(value: object) -> str | None:
        kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
        return None if not isinstance(kind, str) else f"{TAG}{kind}" if kind in known else _OTHER

    return Discriminator(tag_of, custom_error_type="shape", custom_error_message=_SHAPE)


_FUNCTION, _CUSTOM, _NAMESPACE, _OTHER = (f"{TAG}{kind}" for kind in ("function", "custom", "namespace", "other"))
ChatTool = Annotated[
    Annotated[ChatFunctionTool, Tag(_FUNCTION)]
    | Annotated[ChatCustomTool, Tag(_CUSTOM)]
    | Annotated[_OtherChatTool, Tag(_OTHER)],
    _tagged("function", "custom"),
]
_Member = Annotated[
    Annotated[FunctionTool, Tag(_FUNCTION)] | Annotated[CustomTool, Tag(_CUSTOM)] | Annotated[_OtherTool, Tag(_OTHER)],
    _tagged("function", "custom"),
]


class NamespaceTool(Wire):
    """Tools under a common name."""

    type: Literal["namespace"]
    name: ToolName
    description: Description | None = None
    tools: Annotated[list[_Member], Field(min_length=1, max_length=MAX_TOOLS, fail_fast=True)]


ResponseTool = Annotated[
    Annotated[FunctionTool, Tag(_FUNCTION)]
    | Annotated[CustomTool, Tag(_CUSTOM)]
    | Annotated[NamespaceTool, Tag(_NAMESPACE)]
    | Annotated[_OtherTool, Tag(_OTHER)],
    _tagged("function", "custom", "namespace"),
]
ChatToolList = Annotated[list[ChatTool], Field(max_length=MAX_TOOLS, fail_fast=True)]
ResponseToolList = Annotated[list[ResponseTool], Field(max_length=MAX_TOOLS, fail_fast=True)]
