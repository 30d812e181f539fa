"""Closed schemas: arguments hold only names that their schema declares, where it does not say whether it allows others.

By JSON Schema an object without `additionalProperties` may hold any. A model that may write any name writes some that
nobody asked for, without end. What a closed schema allows, the open one allows too.
"""

from collections.abc import Mapping
from typing import cast

_Schema = Mapping[str, object]
# With these, the parts of a schema hold for one object together: no part may close it alone.
_COMBINING = frozenset(
    {"allOf", "oneOf", "$ref", "patternProperties", "unevaluatedProperties", "dependentSchemas", "if"}
)
_OF_SCHEMAS = ("properties", "$defs", "definitions")
_LISTS_OF_SCHEMAS = ("anyOf", "prefixItems")


def closed_schema(schema: _Schema) -> _Schema:
    """The schema, or a narrower one in which objects hold declared names only."""
    return schema if _combines(schema) else cast(_Schema, _closed(schema))


def _combines(value: object) -> bool:
    """Whether parts of the schema are combined anywhere. A reference by itself combines nothing."""
    if isinstance(value, Mapping):
        found = _COMBINING.intersection(value)
        if found and (found != {"$ref"} or "properties" in value):
            return True
        return any(map(_combines, value.values()))
    return isinstance(value, list) and any(map(_combines, value))


def _closed(value: object) -> object:
    if not isinstance(value, Mapping):
        return value
    made = dict(value)
    for name in _OF_SCHEMAS:
        if isinstance(members := value.get(name), Mapping):
            made[name] = {key: _closed(one) for key, one in members.items()}
    for name in _LISTS_OF_SCHEMAS:
        if isinstance(branches := value.get(name), list):
            made[name] = [_closed(one) for one in branches]
    if isinstance(items := value.get("items"), Mapping):
        made["items"] = _closed(items)
    # Branches beside properties declare names of their own.
    if isinstance(value.get("properties"), Mapping) and not {"additionalProperties", "anyOf"}.intersection(value):
        made["additionalProperties"] = False
    return made
