"""Closed schemas of arguments: narrower than what was sent, never wider, and left alone where parts are combined."""

from typing import Any

import pytest
from jsonschema import Draft202012Validator

from api.protocol.tools.closed_schema import closed_schema

Schema = dict[str, Any]  # Any: JSON
PAIR: Schema = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}}, "required": ["a"]}
CLOSED = PAIR | {"additionalProperties": False}


def test_objects_at_any_depth_hold_declared_names_only() -> None:
    schema = {
        "type": "object",
        "properties": {
            "one": PAIR,
            "many": {"type": "array", "items": PAIR},
            "any": {"anyOf": [PAIR, {"type": "null"}]},
        },
        "$defs": {"pair": PAIR},
    }

    assert closed_schema(schema) == {
        "type": "object",
        "properties": {
            "one": CLOSED,
            "many": {"type": "array", "items": CLOSED},
            "any": {"anyOf": [CLOSED, {"type": "null"}]},
        },
        "$defs": {"pair": CLOSED},
        "additionalProperties": False,
    }


@pytest.mark.parametrize(
    "schema",
    [
        PAIR | {"additionalProperties": True},
        PAIR | {"additionalProperties": {"type": "integer"}},
        {"type": "object"},
        PAIR | {"allOf": [{"required": ["b"]}]},
        PAIR | {"oneOf": [{"required": ["b"]}, {"required": ["c"]}]},
        PAIR | {"anyOf": [{"properties": {"c": {"type": "integer"}}, "additionalProperties": {"type": "null"}}]},
        PAIR | {"patternProperties": {"^x": {"type": "integer"}}},
        PAIR | {"$ref": "#/$defs/other", "$defs": {"other": {"additionalProperties": True}}},
        {"type": "object", "properties": {"x": {"allOf": [PAIR]}}},
    ],
)
def test_what_says_it_itself_or_combines_parts_stays_as_it_is(schema: Schema) -> None:
    assert closed_schema(schema) == schema


def test_a_reference_alone_combines_nothing() -> None:
    schema = {"type": "object", "properties": {"pair": {"$ref": "#/$defs/pair"}}, "$defs": {"pair": PAIR}}

    closed = closed_schema(schema)

    assert closed["$defs"] == {"pair": CLOSED}
    assert Draft202012Validator(closed).is_valid({"pair": {"a": 1}})
    assert not Draft202012Validator(closed).is_valid({"pair": {"a": 1, "c": 2}})


def test_names_that_are_no_keywords_are_left_alone() -> None:
    schema = {
        "type": "object",
        "properties": {"properties": {"type": "object"}},
        "enum": [{"properties": {}}],
        "default": PAIR,
    }

    assert closed_schema(schema) == schema | {"additionalProperties": False}
