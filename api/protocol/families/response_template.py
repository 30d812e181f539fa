"""Reading a model's own `response_template`, the description of answers that transformers 5 keeps with a tokenizer.

Read are literals, lists of literals, and patterns that are literals around one named group; templates with anything
else are not, and the model's family is then found by its chat template. A pattern is never run: a model's folder is not
trusted.

Source: `transformers.utils.chat_parsing` 5.23.
"""

import json
import re
from collections.abc import Mapping
from typing import cast

import msgspec

from api.protocol.families.family import ArgumentForm, CallForm, Family, Region, Tags

OWN = "response_template"
_MAX_BYTES = 65536
_THOUGHTS = ("thinking", "reasoning_content", "reasoning")
_MARKER = re.compile(r"<[^<>\s]{1,64}>|\[/?[A-Z_]{1,32}\]")
# A pattern of a literal, one group with a name, and another literal.
_GROUP = re.compile(r"\(\?P<(\w+)>(?:\\w\+|\[[^\]]+\]\+\??|\.\+\?|\.\*\??)\)")
_SPACES = re.compile(r"\\s[*+]\??|\(\?:\\n\)\?|\\n\?")
_SPACED_VALUE = re.compile(r"(?:\\s\*|\\n\??)\(\?P<value>")
_SPECIAL = frozenset(".^$*+?{}[]|()")


class _Unread(Exception):
    """The template says something that this reader does not take."""


def family_of_template(text: str) -> Family | None:
    """The family that a template describes; None where it is no template, or one that cannot be read."""
    if len(text) > _MAX_BYTES:
        return None
    try:
        fields = _fields(json.loads(text))
        return _family(fields)
    except (_Unread, ValueError, RecursionError, msgspec.ValidationError):
        return None


def _fields(template: object) -> Mapping[str, Mapping[str, object]]:
    if not isinstance(template, Mapping) or template.get("version", 1) != 1:
        raise _Unread
    fields = template.get("fields")
    if not isinstance(fields, Mapping) or not all(isinstance(one, Mapping) for one in fields.values()):
        raise _Unread
    return cast(Mapping[str, Mapping[str, object]], fields)


def _family(fields: Mapping[str, Mapping[str, object]]) -> Family:
    known = {*_THOUGHTS, "content", "tool_calls"}
    if not fields.keys() <= known:
        raise _Unread
    thought = next((fields[name] for name in _THOUGHTS if name in fields), None)
    thinking = None if thought is None else _region(thought)
    content = fields.get("content", {})
    answer = _region(content) if "open" in content else None
    if "open_pattern" in content:
        raise _Unread
    calls = _calls(fields["tool_calls"]) if "tool_calls" in fields else None
    literals = [
        *([] if thinking is None else [thinking.opening, thinking.closing]),
        *([] if answer is None else [answer.opening, answer.closing]),
        *([] if calls is None else _literals_of(calls)),
    ]
    markers = dict.fromkeys(found for one in literals for found in _MARKER.findall(one))
    return Family(name=OWN, markers=tuple(markers), thinking=thinking, answer=answer, calls=calls)


def _literals_of(form: CallForm) -> list[str]:
    values = [form.trigger, form.head, form.joint, form.tail, form.closing, form.quote]
    return (
        values if form.tags is None else [*values, *(getattr(form.tags, name) for name in form.tags.__struct_fields__)]
    )


def _region(field: Mapping[str, object]) -> Region:
    if field.get("content", "text") != "text":
        raise _Unread
    return Region(opening=_one(field, "open"), closing=_one(field, "close"))


def _one(field: Mapping[str, object], key: str) -> str:
    """The literal of a field; the first one of a list."""
    value = field.get(key)
    literal = value[0] if isinstance(value, list) and value else value
    if isinstance(literal, str) and literal:
        return literal
    pattern = field.get(f"{key}_pattern")
    if not isinstance(pattern, str):
        raise _Unread
    return _literal(pattern)


def _literal(pattern: str) -> str:
    """The literal that a pattern matches, white space apart; raises _Unread for a real pattern."""
    text, position = _SPACES.sub("", pattern), 0
    pieces = []
    while position < len(text):
        if text[position] == "\\":
            position += 1
            if position == len(text) or (text[position].isalnum() and text[position] != "n"):
                raise _Unread
            pieces.append("\n" if text[position] == "n" else text[position])
        elif text[position] in _SPECIAL:
            raise _Unread
        else:
            pieces.append(text[position])
        position += 1
    return "".join(pieces)


def _around(pattern: object, *names: str) -> list[str]:
    """The literals before, between and behind the groups with these names."""
    if not isinstance(pattern, str):
        raise _Unread
    pieces = _GROUP.split(pattern)
    if tuple(pieces[1::2]) != names:
        raise _Unread
    return [_literal(piece) for piece in pieces[::2]]


def _calls(field: Mapping[str, object]) -> CallForm:
    closing = _one(field, "close")
    arguments = cast(Mapping[str, object], field.get("content_args") or {})
    name, value = _transformed(field.get("transform"))
    match field.get("content"):
        case "json" if value in ("content.arguments", "content.parameters") and not arguments:
            key = value.removeprefix("content.")
            head, joint = f'{{"{name.removeprefix("content.")}": "', f'", "{key}": '
            return CallForm(trigger=_one(field, "open"), head=head, joint=joint, tail="}", closing=closing)
        case "json" if (name, value) == ("name", "content"):
            before, behind = _around(field.get("open_pattern"), "name")
            trigger, head = _split(before)
            form = CallForm(trigger=trigger, head=head, joint=behind, tail="", closing=closing)
            return _with_dialect(form, arguments)
        case "xml-inline" if (name, value) == ("name", "content"):
            return _tagged(field, arguments, closing)
        case _:
            raise _Unread


def _transformed(transform: object) -> tuple[str, str]:
    """The places of name and arguments: `content.name` and `content.arguments` where nothing else is said."""
    function = transform.get("function", "{content}") if isinstance(transform, Mapping) else "{content}"
    if function == "{content}":
        return "content.name", "content.arguments"
    if not isinstance(function, Mapping):
        raise _Unread
    name, value = function.get("name"), function.get("arguments")
    if not isinstance(name, str) or not isinstance(value, str):
        raise _Unread
    return name.strip("{}"), value.strip("{}")


def _split(before: str) -> tuple[str, str]:
    """The trigger and the head of a literal before a name: its first marker, and what follows."""
    marker = _MARKER.match(before)
    if marker is None or marker.end() == len(before):
        return before, ""
    return before[: marker.end()], before[marker.end() :]


def _with_dialect(form: CallForm, arguments: Mapping[str, object]) -> CallForm:
    if not arguments:
        return form
    delimiters = arguments.get("string_delims")
    match delimiters:
        case [[str() as opening, str() as closing]] if opening == closing and arguments.get("unquoted_keys") is True:
            return msgspec.structs.replace(form, arguments=ArgumentForm.BRACED, quote=opening)
        case _:
            raise _Unread


def _tagged(field: Mapping[str, object], arguments: Mapping[str, object], closing: str) -> CallForm:
    before, behind = _around(field.get("open_pattern"), "name")
    pattern = arguments.get("tag_pattern")
    before_key, before_value, after_value = _around(pattern, "key", "value")
    if isinstance(pattern, str) and _SPACED_VALUE.search(pattern):
        before_value, after_value = f"{before_value}\n", f"\n{after_value}"
    trigger, head = _split(before)
    # The closing is the end of the section; what ends the call itself stands before it.
    ends = _MARKER.findall(closing)
    tail = closing[: -len(ends[-1])] if len(ends) > 1 else ""
    return CallForm(
        trigger=trigger,
        head=head,
        joint=behind,
        tail=tail,
        closing=closing[len(tail) :],
        arguments=ArgumentForm.TAGGED,
        tags=Tags(before_key=before_key, before_value=before_value, after_value=after_value),
    )
