"""Tool forms: how a chat template takes tools, calls and results, found out by trial renderings.

A mention of a word in a template's source says nothing; what it makes of a call does.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum, auto
from itertools import product

import msgspec

from api.protocol.prompt.system_turn import Message

# Renders messages and tools; None where the template refuses them.
Render = Callable[[Sequence[Message], Sequence[Mapping[str, object]]], str | None]

_NAME, _KEY, _VALUE, _RESULT, _TEXT = (
    f"probe_{word}_of_a_template" for word in ("name", "key", "value", "end", "text")
)
_QUESTION: Message = {"role": "user", "content": "a question of the probe"}


class IdStyle(Enum):
    """What a template accepts as the id of a call.

    GIVEN:   any
    SHORT:   nine letters or digits, as those of Mistral
    INDEXED: `functions.NAME:INDEX`, which is all that it shows of the name, as those of Kimi
    """

    GIVEN = auto()
    SHORT = auto()
    INDEXED = auto()


class ToolForm(msgspec.Struct, frozen=True, kw_only=True):
    """What a chat template accepts.

    declares_tools:       it shows the tools; otherwise a system text has to
    needs_descriptions:   each tool must have one, possibly empty
    shows_calls:          it shows calls and results; otherwise they are written into texts
    has_argument_strings: arguments are JSON text, otherwise objects
    empty_content:        the content of a message that only calls
    has_text_with_calls:  one message may hold a text and calls
    has_parallel_calls:   one message may hold several calls
    """

    declares_tools: bool = False
    needs_descriptions: bool = False
    shows_calls: bool = False
    id_style: IdStyle = IdStyle.GIVEN
    has_argument_strings: bool = False
    empty_content: str | None = ""
    has_text_with_calls: bool = False
    has_parallel_calls: bool = False


def tool_form_of(render: Render) -> ToolForm:
    """The form of the template that `render` renders."""
    described = next((one for one in (False, True) if _declares(render, has_description=one)), None)
    form = ToolForm(declares_tools=described is not None, needs_descriptions=bool(described))
    for taken in _forms_of_calls(form):
        if _shows(render, taken, calls=1):
            return msgspec.structs.replace(
                taken,
                has_text_with_calls=_shows(render, taken, calls=1, text=_TEXT),
                has_parallel_calls=_shows(render, taken, calls=2),
            )
    return form


def call_id_for(style: IdStyle, given: str, name: str, index: int) -> str:
    """The id of a call as the template accepts it.

    given: the call's own
    index: its position among all calls of the chat
    """
    match style:
        case IdStyle.GIVEN:
            return given
        case IdStyle.SHORT:
            return f"call{index % 100_000:05}"
        case IdStyle.INDEXED:
            return f"functions.{name}:{index}"


def _forms_of_calls(form: ToolForm) -> Iterator[ToolForm]:
    """The forms to try, the usual one first."""
    for style, has_strings, content in product(IdStyle, (False, True), ("", None)):
        yield msgspec.structs.replace(
            form, shows_calls=True, id_style=style, has_argument_strings=has_strings, empty_content=content
        )


def _declares(render: Render, *, has_description: bool) -> bool:
    text = render([_QUESTION], [_tool(0, has_description=has_description)])
    return text is not None and f"{_NAME}0" in text and _KEY in text


def _shows(render: Render, form: ToolForm, *, calls: int, text: str = "") -> bool:
    numbers = range(calls)
    made = [_call(number, form) for number in numbers]
    said: Message = {"role": "assistant", "content": text or form.empty_content, "tool_calls": made}
    results = [_result(number, call["id"]) for number, call in zip(numbers, made, strict=True)]
    rendered = render([_QUESTION, said, *results], [])
    if rendered is None:
        return False
    wanted = [text, *(f"{word}{number}" for word in (_NAME, _VALUE, _RESULT) for number in numbers)]
    # An object that is printed as Python writes it is no JSON.
    return all(one in rendered for one in wanted) and f"'{_KEY}'" not in rendered


def _tool(number: int, *, has_description: bool) -> dict[str, object]:
    parameters = {"type": "object", "properties": {_KEY: {"type": "string"}}}
    described = {"description": ""} if has_description else {}
    return {"type": "function", "function": {"name": f"{_NAME}{number}", **described, "parameters": parameters}}


def _call(number: int, form: ToolForm) -> dict[str, object]:
    name, value = f"{_NAME}{number}", f"{_VALUE}{number}"
    arguments = f'{{"{_KEY}": "{value}"}}' if form.has_argument_strings else {_KEY: value}
    call_id = call_id_for(form.id_style, f"call_{number}", name, number)
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def _result(number: int, call_id: object) -> Message:
    # Without a name, so that only the call can show it.
    return {"role": "tool", "tool_call_id": call_id, "content": f"{_RESULT}{number}"}
