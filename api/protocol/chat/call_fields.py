"""Wire types of the tool calls of an assistant's message in Chat."""

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from api.protocol.shared.validation_messages import TAG
from api.protocol.shared.wire import Name, Wire

# Each is looked up by its id, and no model writes so many.
_MAX_CALLS = 1024
_FUNCTION, _CUSTOM = f"{TAG}function", f"{TAG}custom"
_CALL_SHAPE = "expected an object whose 'type' is 'function' or 'custom'"


class CalledFunction(Wire):
    """The function that was called.

    arguments:        the text of a JSON object
    parsed_arguments: of an SDK that sends its own objects back; `arguments` says the same
    """

    name: Name
    arguments: str | None = None
    parsed_arguments: object = None


class FunctionCall(Wire):
    """A call of a function; `index` is left over from a stream."""

    id: Name
    type: Literal["function"]
    function: CalledFunction
    index: int | None = None


class CalledCustom(Wire):
    """The custom tool that was called, with plain text."""

    name: Name
    input: str


class CustomCall(Wire):
    """A call of a custom tool; `index` is left over from a stream."""

    id: Name
    type: Literal["custom"]
    custom: CalledCustom
    index: int | None = None


def _tag_of(value: object) -> str | None:
    kind = value.get("type") if isinstance(value, dict) else None
    return {"function": _FUNCTION, "custom": _CUSTOM}.get(kind) if isinstance(kind, str) else None


ChatCall = Annotated[
    Annotated[FunctionCall, Tag(_FUNCTION)] | Annotated[CustomCall, Tag(_CUSTOM)],
    Discriminator(_tag_of, custom_error_type="shape", custom_error_message=_CALL_SHAPE),
]
ChatCalls = Annotated[list[ChatCall], Field(max_length=_MAX_CALLS, fail_fast=True)]
