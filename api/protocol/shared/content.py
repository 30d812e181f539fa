"""Message content in a request: a string, or a list of text parts."""

from collections.abc import Sequence
from typing import Annotated, LiteralString, Protocol

from pydantic import AfterValidator, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

from api.protocol.shared.validation_messages import TAG, UNSUPPORTED
from api.protocol.shared.wire import Refused, Wire, only

_TEXT, _PARTS = f"{TAG}text", f"{TAG}parts"


def one_of(names: frozenset[str], sentence: LiteralString) -> AfterValidator:
    """A validator for a `type` or `role` that accepts only `names`; `sentence` is the error for others."""

    def check(value: str) -> str:
        if value not in names:
            raise PydanticCustomError(UNSUPPORTED, sentence)
        return value

    return AfterValidator(check)


def shape(first: str, second: str, sentence: str) -> Discriminator:
    """A union discriminator: tag `first` for a string, `second` for a list; others are refused with `sentence`."""

    def tag_of(value: object) -> str | None:
        if isinstance(value, str):
            return first
        return second if isinstance(value, list) else None

    return Discriminator(tag_of, custom_error_type="shape", custom_error_message=sentence)


_NOT_TEXT = "is not text: images, audio, files and refusals are not supported here yet"
_PART_SHAPE = "expected a string or an array of text parts"


class ChatPart(Wire):
    """A text part of a chat message."""

    type: Annotated[str, one_of(frozenset({"text"}), _NOT_TEXT)]
    text: str
    prompt_cache_breakpoint: Refused = None


class ItemPart(Wire):
    """A text part of a Responses message. An earlier answer comes back as `output_text` with its log probabilities."""

    type: Annotated[str, one_of(frozenset({"input_text", "output_text", "text"}), _NOT_TEXT)]
    text: str
    annotations: Annotated[object, only([])] = None
    logprobs: list[object] | None = None
    prompt_cache_breakpoint: Refused = None


class ResultPart(Wire):
    """A text part of a tool's result."""

    type: Annotated[str, one_of(frozenset({"input_text"}), _NOT_TEXT)]
    text: str
    prompt_cache_breakpoint: Refused = None


ChatContent = Annotated[
    Annotated[str, Tag(_TEXT)] | Annotated[list[ChatPart], Field(fail_fast=True), Tag(_PARTS)],
    shape(_TEXT, _PARTS, _PART_SHAPE),
]
ItemContent = Annotated[
    Annotated[str, Tag(_TEXT)] | Annotated[list[ItemPart], Field(fail_fast=True), Tag(_PARTS)],
    shape(_TEXT, _PARTS, _PART_SHAPE),
]
ResultContent = Annotated[
    Annotated[str, Tag(_TEXT)] | Annotated[list[ResultPart], Field(fail_fast=True), Tag(_PARTS)],
    shape(_TEXT, _PARTS, _PART_SHAPE),
]


class TextPart(Protocol):
    """A content part that has text."""

    @property
    def text(self) -> str: ...


def text_of(content: str | Sequence[TextPart] | None) -> str:
    """The text of a message. Several parts are joined by newlines, as vLLM does."""
    if content is None or isinstance(content, str):
        return content or ""
    return "\n".join(part.text for part in content)
