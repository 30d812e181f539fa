"""Values that a schema names with `const` and `enum`."""

from collections.abc import Iterator, Mapping
from typing import cast

from api.protocol.structured.schemas.malformed import is_number
from api.protocol.structured.schemas.patterns import UNWRITTEN
from api.protocol.structured.schemas.reading import MAX_DEPTH, SchemaRefused
from api.protocol.structured.schemas.scalars import is_exact


def has_exact_numbers(values: list[object]) -> bool:
    """Whether the numbers in these values are compiled as they are."""
    return all(is_exact(leaf) for leaf in _leaves(values) if is_number(leaf))


def is_writable(value: object) -> bool:
    """Whether an answer can hold this value: its texts are free of control characters without a short escape."""
    return not any(isinstance(leaf, str) and UNWRITTEN.search(leaf) for leaf in _leaves(value))


def _leaves(value: object, depth: int = 0) -> Iterator[object]:
    if depth > MAX_DEPTH:
        raise SchemaRefused(f"a value in it is nested more than {MAX_DEPTH} deep")
    if isinstance(value, list | dict):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _leaves(inner, depth + 1)
    else:
        yield value


def type_of(value: object) -> str:
    """The most special type of a value; a whole number is an integer, however it is written."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "integer" if value.is_integer() else "number"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"


def are_equal(a: object, b: object) -> bool:
    """Whether two values are equal in JSON Schema's sense: 1 is 1.0 and not true."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(are_equal, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(are_equal(value, b[name]) for name, value in a.items())
    return bool(a == b)


def literals_of(schema: Mapping[str, object]) -> list[object] | None:
    """The only values that `const` or `enum` allow; None where there is neither."""
    if "const" in schema:
        return [schema["const"]]
    return cast(list[object], schema["enum"]) if "enum" in schema else None
