"""Strings of callers inside messages and tools: all of them, at any depth, names of objects included."""

from collections.abc import Mapping

# Words of Chat's messages and of JSON Schema, which templates look for. No caller made them up.
_WORDS = """
system developer user assistant tool role content name tool_calls tool_call_id reasoning_content thinking id type
function custom arguments input description parameters strict return output_schema properties required items enum
const anyOf oneOf allOf not additionalProperties default format title nullable
string number integer boolean array object null
"""
_VOCABULARY = frozenset(_WORDS.split())


def strings_of(value: object) -> list[str]:
    """The strings of a JSON value, those of the templates' vocabulary left out."""
    found: list[str] = []
    _collect(value, found)
    return found


def _collect(value: object, found: list[str]) -> None:
    if isinstance(value, str):
        if value not in _VOCABULARY:
            found.append(value)
    elif isinstance(value, list | tuple):
        for inner in value:
            _collect(inner, found)
    # Most objects are dicts, which are recognised faster than other mappings.
    elif isinstance(value, dict) or isinstance(value, Mapping):  # noqa: SIM101
        for name, inner in value.items():
            if name not in _VOCABULARY:
                found.append(name)
            if not isinstance(inner, str):
                _collect(inner, found)
            elif inner not in _VOCABULARY:
                found.append(inner)


def with_strings(value: object, replacements: Mapping[str, str]) -> object:
    """The JSON value with other strings in place of those that `replacements` names."""
    if isinstance(value, str):
        return replacements.get(value, value)
    if isinstance(value, Mapping):
        return {with_strings(name, replacements): with_strings(inner, replacements) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [with_strings(inner, replacements) for inner in value]
    return value
