"""The table of JSON Schema keywords: which are enforced, and on values of which types they act.

Source: JSON Schema 2020-12 and its older drafts 4, 6, 7 and 2019-09; llguidance 1.9, docs/json_schema.md.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from api.protocol.structured.schemas.text_formats import FORMATS

TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")
# Longer or larger counts are not enforced: no answer is so long.
MAX_COUNT = 2**24
# Beyond it, neighbouring whole numbers are the same number for readers that use doubles.
MAX_WHOLE = 2**53


class Enforcement(StrEnum):
    """Whether the grammar holds an answer to a keyword."""

    YES = "yes"
    PARTLY = "in part"
    NO = "no"
    FREE = "free"


class Keyword(NamedTuple):
    """A keyword as the documentation shows it.

    types: of the values on which it acts; empty is all types
    """

    enforcement: Enforcement
    note: str = ""
    types: tuple[str, ...] = ()


_STRING, _ARRAY, _OBJECT, _NUMBER = ("string",), ("array",), ("object",), ("integer", "number")
_YES, _PARTLY, _NO, _FREE = Enforcement
_ANNOTATION = "an annotation"
_FORMATS = ", ".join(f"`{name}`" for name in FORMATS)

KEYWORDS: Mapping[str, Keyword] = {
    "type": Keyword(_YES),
    "enum": Keyword(_YES, "whole numbers up to 2^53; a text with a control character cannot be written"),
    "const": Keyword(_YES, "as `enum`"),
    "anyOf": Keyword(_YES),
    "allOf": Keyword(_YES, "not where references in it lead back to themselves"),
    "oneOf": Keyword(_PARTLY, "where its branches exclude each other provably; left out, it is taken as `anyOf`"),
    "$ref": Keyword(_PARTLY, "`#` and `#/...`, recursion included; no other documents, no anchors"),
    "properties": Keyword(_YES, "in the order of the schema, each at most once", _OBJECT),
    "required": Keyword(_YES, "", _OBJECT),
    "additionalProperties": Keyword(_YES, "after the named properties", _OBJECT),
    "patternProperties": Keyword(_PARTLY, "where no name can match two of the patterns", _OBJECT),
    "minProperties": Keyword(_PARTLY, "where the named properties decide it", _OBJECT),
    "maxProperties": Keyword(_PARTLY, "where all named properties are required, or it is 1", _OBJECT),
    "items": Keyword(_YES, "", _ARRAY),
    "prefixItems": Keyword(_YES, "", _ARRAY),
    "additionalItems": Keyword(_YES, "of older drafts, beside a list in `items`", _ARRAY),
    "minItems": Keyword(_YES, "", _ARRAY),
    "maxItems": Keyword(_YES, "", _ARRAY),
    "minLength": Keyword(_YES, "counted in characters", _STRING),
    "maxLength": Keyword(_YES, "counted in characters", _STRING),
    "pattern": Keyword(_PARTLY, "no lookaround, no backreferences, no `\\b`; otherwise as Rust reads it", _STRING),
    "format": Keyword(
        _PARTLY, f"{', '.join(f'`{name}`' for name in FORMATS)}; no leap seconds, five digits in a duration", _STRING
    ),
    "minimum": Keyword(_YES, "up to 2^53; numbers with bounds are written without exponent", _NUMBER),
    "maximum": Keyword(_YES, "as `minimum`", _NUMBER),
    "exclusiveMinimum": Keyword(_YES, "a number, or a boolean as in draft 4", _NUMBER),
    "exclusiveMaximum": Keyword(_YES, "a number, or a boolean as in draft 4", _NUMBER),
    "multipleOf": Keyword(_PARTLY, "up to 10,000 units of its last decimal", _NUMBER),
    "not": Keyword(_NO, "but `false`, `true` and `{}`"),
    "if": Keyword(_NO, "free without `then` and `else`"),
    "then": Keyword(_NO, "with `if`"),
    "else": Keyword(_NO, "with `if`"),
    "contains": Keyword(_NO, "", _ARRAY),
    "minContains": Keyword(_NO, "with `contains`", _ARRAY),
    "maxContains": Keyword(_NO, "with `contains`", _ARRAY),
    "uniqueItems": Keyword(_NO, "`false` is free", _ARRAY),
    "unevaluatedItems": Keyword(_NO, "`true` is free", _ARRAY),
    "propertyNames": Keyword(_NO, '`true` and `{"type": "string"}` are free', _OBJECT),
    "dependencies": Keyword(_NO, "", _OBJECT),
    "dependentRequired": Keyword(_NO, "", _OBJECT),
    "dependentSchemas": Keyword(_NO, "", _OBJECT),
    "unevaluatedProperties": Keyword(_NO, "`true` is free", _OBJECT),
    "$dynamicRef": Keyword(_NO),
    "$recursiveRef": Keyword(_NO),
    "$defs": Keyword(_FREE, "read where a `$ref` names them"),
    "definitions": Keyword(_FREE, "read where a `$ref` names them"),
    "title": Keyword(_FREE, _ANNOTATION),
    "description": Keyword(_FREE, _ANNOTATION),
    "default": Keyword(_FREE, _ANNOTATION),
    "examples": Keyword(_FREE, _ANNOTATION),
    "deprecated": Keyword(_FREE, _ANNOTATION),
    "readOnly": Keyword(_FREE, _ANNOTATION),
    "writeOnly": Keyword(_FREE, _ANNOTATION),
    "contentEncoding": Keyword(_FREE, _ANNOTATION),
    "contentMediaType": Keyword(_FREE, _ANNOTATION),
    "contentSchema": Keyword(_FREE, _ANNOTATION),
    "$schema": Keyword(_FREE, "keywords mean the same whatever draft it names"),
    "$id": Keyword(_FREE),
    "$anchor": Keyword(_FREE),
    "$dynamicAnchor": Keyword(_FREE),
    "$recursiveAnchor": Keyword(_FREE),
    "$vocabulary": Keyword(_FREE),
    "$comment": Keyword(_FREE),
}


def acts_on(keyword: str, types: frozenset[str] | None) -> bool:
    """Whether a keyword says something of values of these types; None is all types."""
    own = KEYWORDS[keyword].types
    return types is None or not own or not types.isdisjoint(own)


def keyword_table() -> str:
    """The table of the documentation, in Markdown."""
    rows = [
        f"| `{name}` | {keyword.enforcement} | {keyword.note} |"
        for name, keyword in KEYWORDS.items()
        if keyword.note != _ANNOTATION
    ]
    annotations = ", ".join(f"`{name}`" for name, keyword in KEYWORDS.items() if keyword.note == _ANNOTATION)
    head = ["| keyword | enforced | |", "|---|---|---|"]
    return "\n".join([*head, *rows, f"| {annotations} | free | annotations |", "| all others | free | |"])
