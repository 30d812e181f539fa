"""Segments: the parts of a model's output (text, reasoning, tool calls), as a segment parser splits them.

A job whose output needs a parser has its name and initial state in `context`, so that a replay never asks the model.
Jobs without one are plain text.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol, Self

import msgspec

# The key of `context` that names the parser.
PARSER = "parser"


class Text(msgspec.Struct, frozen=True):
    """A piece of the answer's text; may be empty."""

    text: str


class Reasoning(msgspec.Struct, frozen=True):
    """A piece of reasoning text."""

    text: str


class CallOpened(msgspec.Struct, frozen=True):
    """The beginning of a tool call, sent as soon as its name is complete.

    is_custom: whether the tool takes free text (`input`) instead of JSON arguments
    """

    name: str
    is_custom: bool = False


class CallArguments(msgspec.Struct, frozen=True):
    """A piece of the open call's arguments."""

    text: str


class CallClosed(msgspec.Struct, frozen=True):
    """The end of the open call, whose arguments are complete."""


Segment = Text | Reasoning | CallOpened | CallArguments | CallClosed


class SegmentParser(Protocol):
    """An incremental parser of all choices of one job. The result must not depend on how the text is cut."""

    def push(self, choice: int, text: str, token_ids: Sequence[int]) -> Sequence[Segment]:
        """The segments that became certain with this text; never raises, whatever the model writes."""

    def close(self, choice: int) -> Sequence[Segment]:
        """The segments of held-back text at the end of a choice; to be called once."""


class PlainText:
    """The parser of a job whose whole output is text."""

    def push(self, choice: int, text: str, token_ids: Sequence[int]) -> Sequence[Segment]:
        """The text as it is."""
        return (Text(text),)

    def close(self, choice: int) -> Sequence[Segment]:
        """Nothing is held back."""
        return ()


class ParserStart(msgspec.Struct, frozen=True, kw_only=True):
    """A job's parser and its state before the first token, as `context` holds it.

    name:           of the model's family
    state:          what the end of the prompt has opened already, in the parser's own words
    tokens:         the family's markers that are tokens of the vocabulary
    reads_thoughts: whether the output may hold thoughts
    reads_calls:    whether it may hold calls
    template:       the model's own description of its answers, where it has one, as JSON text
    """

    name: str
    state: str = ""
    tokens: tuple[str, ...] = ()
    reads_thoughts: bool = False
    reads_calls: bool = False
    template: str | None = None

    @property
    def stored(self) -> dict[str, object]:
        """The entry of `context`."""
        return {PARSER: {**msgspec.to_builtins(self), "tokens": list(self.tokens)}}

    @classmethod
    def of(cls, stored: Mapping[str, object]) -> Self:
        """From the entry of `context`."""
        return msgspec.convert(stored, cls)
