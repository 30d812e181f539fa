"""Schemas that only endless values fit, such as an object that requires a property of its own kind."""

from collections.abc import Mapping
from typing import cast

from api.protocol.structured.schemas.normal_form import types_of
from api.protocol.structured.schemas.reading import Schema
from api.protocol.structured.schemas.values import literals_of

_DEFINITION = "#/$defs/"


def has_finite_value(root: Schema) -> bool:
    """Whether a finite value may fit a normal form; of what intersections rule out it knows nothing."""
    if isinstance(root, bool):
        return root
    definitions = {"": root, **cast(dict[str, Schema], root.get("$defs", {}))}
    finite: set[str] = set()
    # Definitions are finite once those that they need are; each round finds at least one more, or is the last.
    while True:
        found = {name for name in definitions.keys() - finite if _is_finite(definitions[name], finite)}
        if not found:
            return "" in finite
        finite |= found


def _is_finite(schema: Schema, finite: set[str]) -> bool:
    if isinstance(schema, bool):
        return schema
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.removeprefix(_DEFINITION).removeprefix("#") not in finite:
        return False
    if not all(_is_finite(part, finite) for part in cast(list[Schema], schema.get("allOf", []))):
        return False
    branches = cast(list[Schema], schema.get("anyOf", [True]))
    if not any(_is_finite(branch, finite) for branch in branches):
        return False
    values = literals_of(schema)
    if values is not None:
        return bool(values)
    types = types_of(schema)
    return types is None or any(_is_type_finite(kind, schema, finite) for kind in types)


def _is_type_finite(kind: str, schema: Mapping[str, object], finite: set[str]) -> bool:
    if kind == "object":
        properties = cast(dict[str, Schema], schema.get("properties", {}))
        # Which pattern a name fits is not looked at.
        rest = cast(Schema, "patternProperties" in schema or schema.get("additionalProperties", True))
        required = cast(list[str], schema.get("required", []))
        return all(_is_finite(properties.get(name, rest), finite) for name in required)
    if kind == "array":
        first = cast(list[Schema], schema.get("prefixItems", []))[: cast(int, schema.get("minItems", 0))]
        needs_more = cast(int, schema.get("minItems", 0)) > len(first)
        items = [*first, cast(Schema, schema.get("items", True))] if needs_more else first
        return all(_is_finite(item, finite) for item in items)
    return True
