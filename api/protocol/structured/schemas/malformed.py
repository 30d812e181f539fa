"""The form of keywords: what a value of each keyword must be, whether or not the keyword is enforced."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from api.protocol.structured.schemas.keywords import TYPES
from api.protocol.structured.schemas.reading import SchemaPath, SchemaRefused, context_of


class _Form(NamedTuple):
    holds: Callable[[object], bool]
    wanted: str


def is_number(value: object) -> bool:
    """Whether a JSON value is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_schema(value: object) -> bool:
    return isinstance(value, dict | bool)


def _is_type(value: object) -> bool:
    names = value if isinstance(value, list) else [value]
    return bool(names) and all(isinstance(name, str) and name in TYPES for name in names)


def _is_count(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0 and value == int(value)


_SCHEMA = _Form(_is_schema, "a schema")
_SCHEMAS = _Form(lambda value: isinstance(value, list) and bool(value), "an array of schemas")
_BY_NAME = _Form(lambda value: isinstance(value, dict), "an object")
_COUNT = _Form(_is_count, "a whole number, 0 or more")
_NUMBER = _Form(is_number, "a number")
_TEXT = _Form(lambda value: isinstance(value, str), "a string")
_FLAG = _Form(lambda value: isinstance(value, bool), "a boolean")
_BOUND = _Form(lambda value: isinstance(value, bool) or is_number(value), "a number")

_FORMS: Mapping[str, _Form] = {
    "type": _Form(_is_type, f"one or several of {', '.join(TYPES)}"),
    "enum": _Form(lambda value: isinstance(value, list), "an array"),
    "anyOf": _SCHEMAS,
    "allOf": _SCHEMAS,
    "oneOf": _SCHEMAS,
    "$ref": _TEXT,
    "properties": _BY_NAME,
    "patternProperties": _BY_NAME,
    "additionalProperties": _SCHEMA,
    "required": _Form(
        lambda value: isinstance(value, list) and all(isinstance(name, str) for name in value), "an array of strings"
    ),
    "minProperties": _COUNT,
    "maxProperties": _COUNT,
    "items": _Form(lambda value: _is_schema(value) or isinstance(value, list), "a schema"),
    # Generators write an empty list too, which asks for nothing.
    "prefixItems": _Form(lambda value: isinstance(value, list), "an array of schemas"),
    "additionalItems": _SCHEMA,
    "minItems": _COUNT,
    "maxItems": _COUNT,
    "minLength": _COUNT,
    "maxLength": _COUNT,
    "pattern": _TEXT,
    "format": _TEXT,
    "minimum": _NUMBER,
    "maximum": _NUMBER,
    "exclusiveMinimum": _BOUND,
    "exclusiveMaximum": _BOUND,
    "multipleOf": _Form(lambda value: is_number(value) and value > 0, "a number above 0"),  # type: ignore[operator]
    "not": _SCHEMA,
    "if": _SCHEMA,
    "then": _SCHEMA,
    "else": _SCHEMA,
    "contains": _SCHEMA,
    "uniqueItems": _FLAG,
    "unevaluatedItems": _SCHEMA,
    "propertyNames": _SCHEMA,
    "dependencies": _BY_NAME,
    "dependentRequired": _BY_NAME,
    "dependentSchemas": _BY_NAME,
    "unevaluatedProperties": _SCHEMA,
}


def refuse_malformed(schema: Mapping[str, object], path: SchemaPath) -> None:
    """Raise SchemaRefused for a keyword whose value has a wrong form; schemas inside it are not looked at."""
    for keyword, form in _FORMS.items():
        if keyword in schema and not form.holds(schema[keyword]):
            raise SchemaRefused(f"{context_of(path)}, '{keyword}' must be {form.wanted}")
