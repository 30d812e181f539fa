"""Values of tagged parameters: which types a tool's schema allows, and the JSON of the raw text."""

import json
import math
from collections.abc import Mapping
from typing import cast

_ALL = frozenset({"string", "integer", "number", "boolean", "null", "object", "array"})
# Nested unions of a hostile schema.
_MAX_DEPTH = 8


def types_of(schema: object, root: Mapping[str, object], depth: int = 0) -> frozenset[str]:
    """The JSON types that a parameter's schema allows; those without a statement are strings.

    root: the tool's whole schema, for local references
    """
    schema = resolved(schema, root)
    if not isinstance(schema, Mapping) or depth > _MAX_DEPTH:
        return frozenset({"string"})
    declared = schema.get("type")
    if isinstance(declared, str):
        return frozenset({declared})
    if isinstance(declared, list):
        return frozenset(one for one in declared if isinstance(one, str))
    if isinstance(schema.get("enum"), list):
        return frozenset(_type_of(value) for value in cast(list[object], schema["enum"]))
    if "const" in schema:
        return frozenset({_type_of(schema["const"])})
    for union in ("anyOf", "oneOf", "allOf"):
        if isinstance(schema.get(union), list):
            branches = cast(list[object], schema[union])
            return frozenset().union(*(types_of(one, root, depth + 1) for one in branches))
    if "properties" in schema:
        return frozenset({"object"})
    return frozenset({"array"}) if "items" in schema else frozenset({"string"})


def resolved(schema: object, root: Mapping[str, object]) -> object:
    """The schema behind local references; itself where they lead nowhere."""
    for _ in range(_MAX_DEPTH):
        reference = schema.get("$ref") if isinstance(schema, Mapping) else None
        if not isinstance(reference, str) or not reference.startswith("#"):
            return schema
        target: object = root
        for key in reference.removeprefix("#").split("/")[1:]:
            target = target.get(key.replace("~1", "/").replace("~0", "~")) if isinstance(target, Mapping) else None
        schema = target
    return schema


def _type_of(value: object) -> str:
    match value:
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case None:
            return "null"
        case list():
            return "array"
        case dict():
            return "object"
        case _:
            return "string"


def json_of(raw: str, types: frozenset[str]) -> str:
    """The JSON text of a raw value, as the first of the allowed types that it can be; a string in the last place."""
    text = raw.strip()
    if "null" in types and text in ("null", "None"):
        return "null"
    if "boolean" in types and text.lower() in ("true", "false"):
        return text.lower()
    if types & {"integer", "number"} and _is_number(text, is_whole="number" not in types):
        return text
    if types & {"object", "array"} and _is_container(text, types):
        return text
    return json.dumps(raw, ensure_ascii=False)


def _is_number(text: str, *, is_whole: bool) -> bool:
    try:
        value = json.loads(text, parse_constant=lambda _name: None)
    except (ValueError, RecursionError):
        return False
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) and (not is_whole or value == int(value))


def _is_container(text: str, types: frozenset[str]) -> bool:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return (isinstance(value, dict) and "object" in types) or (isinstance(value, list) and "array" in types)
