"""Keywords of arrays and objects, in the form that is compiled; the schemas inside them are read by a callback."""

from collections.abc import Callable, Mapping, Sequence
from typing import cast

from api.protocol.structured.schemas.patterns import is_read_alike
from api.protocol.structured.schemas.reading import Findings, Schema, SchemaPath
from api.protocol.structured.schemas.scalars import count_of

ReadSchema = Callable[[object, SchemaPath], Schema]


def arrays(schema: Mapping[str, object], path: SchemaPath, findings: Findings, read: ReadSchema) -> dict[str, object]:
    """The keywords of arrays; a list in `items` becomes `prefixItems`, as 2020-12 has it."""
    kept: dict[str, object] = {}
    if isinstance(schema.get("items"), list):
        first, rest = "items", "additionalItems"
    else:
        first, rest = "prefixItems", "items"
    if first in schema:
        items = cast(list[object], schema[first])
        kept["prefixItems"] = [read(item, (*path, first, index)) for index, item in enumerate(items)]
    if rest in schema:
        kept["items"] = read(schema[rest], (*path, rest))
    for keyword in ("minItems", "maxItems"):
        if keyword in schema and (count_of(schema[keyword]) or keyword == "maxItems"):
            kept[keyword] = count_of(schema[keyword])
    if schema.get("uniqueItems") and kept.get("maxItems") not in (0, 1):
        findings.leave_out("uniqueItems", path)
    if "contains" in schema and (schema.get("minContains") != 0 or "maxContains" in schema):
        findings.leave_out("contains", path)
    if schema.get("unevaluatedItems", True) not in (True, {}):
        findings.leave_out("unevaluatedItems", path)
    return kept


# Values with which keywords that are not enforced ask for nothing.
_FREE_VALUES: Mapping[str, Sequence[object]] = {
    "dependencies": ({},),
    "dependentRequired": ({},),
    "dependentSchemas": ({},),
    "propertyNames": (True, {}, {"type": "string"}),
    "unevaluatedProperties": (True, {}),
}


def objects(schema: Mapping[str, object], path: SchemaPath, findings: Findings, read: ReadSchema) -> dict[str, object]:
    """The keywords of objects."""
    kept: dict[str, object] = {}
    for keyword in schema:
        if keyword in ("properties", "patternProperties"):
            named = cast(dict[str, object], schema[keyword])
            kept[keyword] = {name: read(value, (*path, keyword, name)) for name, value in named.items()}
        elif keyword == "additionalProperties":
            kept[keyword] = read(schema[keyword], (*path, keyword))
        elif keyword == "required":
            kept[keyword] = list(dict.fromkeys(cast(list[str], schema[keyword])))
        elif keyword in _FREE_VALUES and schema[keyword] not in _FREE_VALUES[keyword]:
            findings.leave_out(keyword, path)
    if not all(map(is_read_alike, cast(dict[str, object], kept.get("patternProperties", {})))):
        leave_out_patterns(kept)
        findings.leave_out("patternProperties", path, "cannot be enforced: a pattern is not read as it is meant")
    return kept | _property_counts(schema, kept, path, findings)


def leave_out_patterns(kept: dict[str, object]) -> None:
    """Remove `patternProperties`, and with it `additionalProperties`, which would forbid what the patterns allow."""
    del kept["patternProperties"]
    kept.pop("additionalProperties", None)


def _property_counts(
    schema: Mapping[str, object], kept: Mapping[str, object], path: SchemaPath, findings: Findings
) -> dict[str, object]:
    """`minProperties` and `maxProperties`, as far as they are enforced.

    Names that `additionalProperties` or `patternProperties` allow may be written twice, which a reader counts once.
    """
    named = cast(dict[str, object], kept.get("properties", {})).keys()
    required = set(cast(list[str], kept.get("required", [])))
    is_closed = kept.get("additionalProperties") is False and not kept.get("patternProperties")
    low = count_of(schema.get("minProperties", 0))
    high = count_of(schema["maxProperties"]) if "maxProperties" in schema else None
    if low <= len(required):
        low = 0
    if is_closed and high is not None and high >= len(named | required):
        high = None
    # Of optional properties, the compiler can ask for "at least one" and "at most one", in closed objects.
    is_one = is_closed and low <= len(required) + 1 and high in (None, len(required) + 1)
    is_decided = named <= required or is_one
    counts: dict[str, object] = {}
    if high is not None:
        if is_decided:
            counts["maxProperties"] = high
        else:
            findings.leave_out("maxProperties", path, "cannot be enforced beside optional properties")
    if low:
        if is_decided and low <= len(required) + 1:
            counts["minProperties"] = low
        else:
            findings.leave_out("minProperties", path, "cannot be enforced beyond one property that is not required")
    return counts
