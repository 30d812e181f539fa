"""Strings of callers inside messages and tools: all of them, at any depth, names of objects included."""

from collections.abc import Iterator, Mapping

# Words of Chat's messages and of JSON Schema, which templates look for. No caller made them up.
_WORDS = """
system developer user assistant tool role content name tool_calls tool_call_id reasoning_content thinking id type
function custom arguments input description parameters strict return output_schema properties required items enum
const anyOf oneOf allOf not additionalProperties default format title nullable
string number integer boolean array object null
"""
_VOCABULARY = frozenset(_WORDS.split())


def strings_of(value: object) -> Iterator[str]:
    """The strings of a JSON value, those of the templates' vocabulary left out."""
    if isinstance(value, str):
        if value not in _VOCABULARY:
            yield value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from strings_of(name)
            yield from strings_of(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from strings_of(inner)


def with_strings(value: object, replacements: Mapping[str, str]) -> object:
    """The JSON value with other strings in place of those that `replacements` names."""
    if isinstance(value, str):
        return replacements.get(value, value)
    if isinstance(value, Mapping):
        return {with_strings(name, replacements): with_strings(inner, replacements) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [with_strings(inner, replacements) for inner in value]
    return value
