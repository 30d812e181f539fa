"""A model family: the markers of its thoughts and the form of its tool calls, as plain data.

The same description makes the parser of what was written and the grammar of what may be written. Literals are spelled
as the family's chat templates spell them. White space in them is what the grammar writes; the parser takes any.
"""

from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum

import msgspec
from msgspec import structs

from storage.contract import MARKER_SIGN

# Stands in a literal for a number, which the family counts its calls with. A Unicode noncharacter.
NUMBER = "\ufdd1"


class ArgumentForm(StrEnum):
    """How a family writes the arguments of a call.

    JSON:   an object
    TAGGED: a tag for each parameter, strings raw (Qwen3-Coder, GLM, MiniMax)
    BRACED: an object with bare keys and strings between markers (Gemma 4)
    PYTHON: keyword arguments of Python (LFM2)
    """

    JSON = "json"
    TAGGED = "tagged"
    BRACED = "braced"
    PYTHON = "python"


class Tags(msgspec.Struct, frozen=True, kw_only=True):
    """The literals around one parameter: before its key, between key and value, behind its value."""

    before_key: str
    before_value: str
    after_value: str


class CallForm(msgspec.Struct, frozen=True, kw_only=True):
    """How a family writes calls: a section of `trigger`, one call or several, and `closing`.

    trigger:     begins a section; nothing else that begins with it can be written
    opening:     between the trigger and the first call
    head:        of a call, before the tool's name
    joint:       between name and arguments
    tail:        behind the arguments
    separator:   between the calls of a section; None where each call has a section of its own
    ending:      behind the last call of a section and before `closing`
    closing:     ends the section; empty where nothing does
    arguments:   their form
    tags:        of ArgumentForm.TAGGED
    quote:       around strings, of ArgumentForm.BRACED
    other_heads: further forms that are read
    other_joints: the same
    is_bare:     whether calls may also stand at the very beginning of an answer, without the trigger
    custom_head: of a call with free text, behind the trigger and before the name
    custom_joint: between its name and its text
    custom_tail: behind its text and before `closing`
    """

    trigger: str
    head: str
    joint: str
    tail: str
    opening: str = ""
    separator: str | None = None
    ending: str = ""
    closing: str = ""
    arguments: ArgumentForm = ArgumentForm.JSON
    tags: Tags | None = None
    quote: str = '"'
    other_heads: tuple[str, ...] = ()
    other_joints: tuple[str, ...] = ()
    is_bare: bool = False
    custom_head: str = "\n<custom="
    custom_joint: str = ">\n"
    custom_tail: str = "\n</custom>\n"


class Region(msgspec.Struct, frozen=True, kw_only=True):
    """A part of an output between two markers.

    after: what follows the closing marker before the next part, where a family writes more than white space there
    """

    opening: str
    closing: str
    after: str = ""


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """A model family.

    name:     as `tool_format` shows it
    markers:  texts that are one token in the family's vocabularies
    thinking: None where it has no thoughts
    calls:    None where it has no calls
    answer:   around the answer's text; None where all text outside of thoughts and calls is the answer
    asides:   further openings of text that belongs to the answer
    """

    name: str
    markers: tuple[str, ...] = ()
    thinking: Region | None = None
    calls: CallForm | None = None
    answer: Region | None = None
    asides: tuple[str, ...] = ()

    def state_at(self, prompt: str) -> str:
        """The parser's state before the first token: THINKING where the prompt ends inside a thought, else OUTSIDE.

        prompt: the rendered prompt or its end
        """
        if self.thinking is None:
            return OUTSIDE
        # Nothing that a caller writes stands at the end of a prompt: the template opens the answer there.
        opening = self.thinking.opening.replace(MARKER_SIGN, "").strip()
        return THINKING if prompt.rstrip().endswith(opening) else OUTSIDE

    def bound_to(self, tokens: Iterable[str]) -> "Family":
        """The family with MARKER_SIGN before each marker that is a token of the vocabulary.

        tokens: those of `markers` that are
        """
        names = sorted(set(self.markers).intersection(tokens), key=len, reverse=True)
        return self if not names else _signed(self, names)


def literals_of(value: object) -> Iterator[str]:
    """All literals of a family, or of a part of one."""
    if isinstance(value, ArgumentForm):
        return
    if isinstance(value, str):
        yield value
    elif isinstance(value, tuple):
        for one in value:
            yield from literals_of(one)
    elif isinstance(value, Family):
        yield from literals_of((value.thinking, value.calls, value.answer, value.asides))
    elif isinstance(value, msgspec.Struct):
        yield from literals_of(tuple(getattr(value, name) for name in value.__struct_fields__))


def custom_call_text(family: Family, name: str, text: str) -> str:
    """A call with free text as the family writes it, markers without their sign; empty for a family without calls."""
    form = family.calls
    if form is None:
        return ""
    pieces = [form.trigger, form.custom_head, name, form.custom_joint, text, form.custom_tail, form.closing]
    return "".join(pieces).replace(MARKER_SIGN, "")


# States of a parser before the first token.
OUTSIDE, THINKING = "", "thinking"


def _signed(family: Family, markers: list[str]) -> Family:
    """The family with signed markers in all of its literals."""
    signed: Mapping[str, str] = {name: f"{MARKER_SIGN}{name}" for name in markers}

    def sign(value: object) -> object:
        if isinstance(value, ArgumentForm):
            return value
        if isinstance(value, str):
            return _replaced(value, signed)
        if isinstance(value, tuple):
            return tuple(map(sign, value))
        if isinstance(value, msgspec.Struct):
            return structs.replace(value, **{name: sign(getattr(value, name)) for name in value.__struct_fields__})
        return value

    changes = {name: sign(getattr(family, name)) for name in ("thinking", "calls", "answer", "asides")}
    return structs.replace(family, **changes)


def _replaced(text: str, signed: Mapping[str, str]) -> str:
    """The text with its markers signed; of two that begin at one place the longer one counts."""
    pieces = []
    position = 0
    while position < len(text):
        marker = next((name for name in signed if text.startswith(name, position)), None)
        pieces.append(text[position] if marker is None else signed[marker])
        position += 1 if marker is None else len(marker)
    return "".join(pieces)
