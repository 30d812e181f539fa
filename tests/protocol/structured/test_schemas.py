"""What of a JSON schema is enforced: each keyword with texts that fit and texts that do not."""

import json

import pytest

from api.protocol.structured.constraints import ConstraintRefused
from api.protocol.structured.judging import judge_schema
from api.protocol.structured.schemas.keywords import KEYWORDS, Enforcement
from tests.protocol.structured.texts import allowed, fits, matcher_for

_CLOSED = {"type": "object", "additionalProperties": False}

# A schema, texts that fit it, and texts that do not.
ENFORCED: dict[str, tuple[object, list[str], list[str]]] = {
    "type": ({"type": ["integer", "null"]}, ["1", "-20", "null"], ["1.5", '"a"', "true"]),
    "enum": ({"enum": ["a", 1, None, {"b": [1]}]}, ['"a"', "1", "null", '{"b":[1]}'], ['"b"', "2", '{"b":[2]}']),
    "const": ({"const": {"a": 1.5}}, ['{"a": 1.5}', '{"a":1.5}'], ['{"a":1}', "{}"]),
    "anyOf": ({"anyOf": [{"type": "null"}, {"const": 3}]}, ["null", "3"], ["4"]),
    "allOf": (
        {"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 5}], "multipleOf": 2},
        ["4"],
        ["3", "5", "6"],
    ),
    "oneOf": (
        {
            "oneOf": [{"$ref": "#/$defs/cat"}, {"$ref": "#/$defs/dog"}],
            "$defs": {
                "cat": {**_CLOSED, "properties": {"is": {"const": "cat"}, "lives": {"const": 9}}, "required": ["is"]},
                "dog": {**_CLOSED, "properties": {"is": {"enum": ["dog", "pup"]}}, "required": ["is"]},
            },
        },
        ['{"is":"cat","lives":9}', '{"is":"pup"}'],
        ['{"is":"dog","lives":9}', "{}"],
    ),
    "$ref": (
        {"$ref": "#/$defs/a~1b%25", "$defs": {"a/b%": {"type": "array", "items": {"$ref": "#/$defs/a~1b%25"}}}},
        ["[]", "[[],[[]]]"],
        ["[1]", "{}"],
    ),
    "properties": (
        {**_CLOSED, "properties": {"b": {"type": "integer"}, "a": {"type": "null"}}},
        ["{}", '{"b":1}', '{"a":null}', '{"b":1,"a":null}'],
        ['{"a":null,"b":1}', '{"b":"x"}', '{"c":1}', '{"b":1,"b":2}'],
    ),
    "required": ({"type": "object", "required": ["a"]}, ['{"a":[]}', '{"a":1, "b":2}'], ["{}", '{"b":1}']),
    "additionalProperties": (
        {"type": "object", "properties": {"a": {"const": 1}}, "additionalProperties": {"type": "string"}},
        ['{"a":1,"x":"y"}', '{"x":"y"}'],
        ['{"x":1}', '{"a":"y"}', '{"\\u0061":"y"}', '{"a":1,"\\u0061":"y"}'],
    ),
    "patternProperties": (
        {**_CLOSED, "patternProperties": {"^n": {"type": "integer"}, "^s": {"type": "string"}}},
        ['{"n1":1,"s":"x"}', "{}"],
        ['{"n":"x"}', '{"s":1}', '{"x":1}'],
    ),
    "minProperties": ({"type": "object", "minProperties": 1}, ['{"a":1}'], ["{}"]),
    "maxProperties": ({"type": "object", "maxProperties": 1}, ["{}", '{"a":1}'], ['{"a":1,"b":2}']),
    "items": ({"type": "array", "items": {"type": "boolean"}}, ["[]", "[true, false]"], ["[1]"]),
    "prefixItems": (
        {"type": "array", "prefixItems": [{"const": 1}, {"const": 2}], "items": False},
        ["[]", "[1]", "[1,2]"],
        ["[2]", "[1,2,3]"],
    ),
    "additionalItems": (
        {"type": "array", "items": [{"const": 1}], "additionalItems": {"const": 2}},
        ["[]", "[1,2,2]"],
        ["[2]", "[1,1]"],
    ),
    "minItems": ({"type": "array", "minItems": 2}, ["[1,2]"], ["[]", "[1]"]),
    "maxItems": ({"type": "array", "maxItems": 2.0}, ["[]", "[1,2]"], ["[1,2,3]"]),
    "minLength": ({"type": "string", "minLength": 2}, ['"é\\n"', '"abc"'], ['"é"', '"\\n"']),
    "maxLength": ({"type": "string", "maxLength": 1}, ['""', '"😀"'], ['"ab"']),
    "pattern": ({"type": "string", "pattern": "^a|\\d$"}, ['"ab"', '"x1"'], ['"ba"', '"1x"']),
    "minimum": ({"type": "number", "minimum": -1.5}, ["-1.5", "0", "7.25"], ["-1.6", "-2"]),
    "maximum": ({"type": "integer", "maximum": 10}, ["10", "-3"], ["11"]),
    "exclusiveMinimum": ({"type": "integer", "minimum": 1, "exclusiveMinimum": True}, ["2"], ["1", "0"]),
    "exclusiveMaximum": ({"type": "number", "exclusiveMaximum": 1}, ["0.99", "-4"], ["1", "1.0", "2"]),
    "multipleOf": ({"type": "number", "multipleOf": 0.25}, ["0.50", "-1.75", "3"], ["0.3", "1.1", "0.30"]),
    "format": (
        {"type": "string", "format": "date"},
        ['"2024-02-29"', '"2000-02-29"', '"1999-12-31"'],
        ['"2023-02-29"', '"1900-02-29"', '"2024-04-31"', '"2024-1-1"'],
    ),
    "format beside a pattern": (
        {"type": "string", "format": "date", "pattern": "-02-"},
        ['"2024-02-29"'],
        ['"2023-02-29"', '"2024-03-01"'],
    ),
    "keywords of other types": ({"type": "string", "minimum": 3, "required": ["a"]}, ['"x"'], ["4"]),
    "no type": ({"minLength": 2}, ['"ab"', "1", "{}"], ['"a"']),
    "a property of a pattern": (
        {
            "type": "object",
            "properties": {"n1": {"minimum": 3}},
            "patternProperties": {"^n": {"type": "integer"}},
            "additionalProperties": False,
        },
        ['{"n1":3}', '{"n2":0}'],
        ['{"n1":2}', '{"n1":"x"}', '{"x":1}'],
    ),
    "true": (True, ["1", '{"a":[]}'], ["", "{"]),
}
# Values with which a keyword asks for something that is not enforced.
UNENFORCED: dict[str, dict[str, object]] = {
    "oneOf": {"oneOf": [{"type": "integer"}, {"type": "number"}]},
    "$ref": {"$ref": "https://example.com/schema.json"},
    "patternProperties": {"patternProperties": {"^a": True, "b$": False}},
    "minProperties": {"minProperties": 2, "type": "object"},
    "maxProperties": {"maxProperties": 2, "properties": {"a": True}},
    "pattern": {"pattern": "^(?!a)b"},
    "format": {"format": "idn-email"},
    "multipleOf": {"multipleOf": 1234567},
    "not": {"not": {"type": "string"}},
    "if": {"if": {"type": "string"}, "then": {"minLength": 1}},
    "contains": {"contains": {"const": 1}},
    "uniqueItems": {"uniqueItems": True},
    "unevaluatedItems": {"unevaluatedItems": False},
    "propertyNames": {"propertyNames": {"pattern": "^a"}},
    "dependencies": {"dependencies": {"a": ["b"]}},
    "dependentRequired": {"dependentRequired": {"a": ["b"]}},
    "dependentSchemas": {"dependentSchemas": {"a": {"required": ["b"]}}},
    "unevaluatedProperties": {"unevaluatedProperties": False},
    "$dynamicRef": {"$dynamicRef": "#node"},
    "$recursiveRef": {"$recursiveRef": "#"},
    "minimum": {"minimum": 2**60},
    "const": {"const": 2**60},
    "enum": {"enum": [1, 1e300]},
    "minLength": {"minLength": 2**40},
}
FREE: list[dict[str, object]] = [
    {"not": False},
    {"uniqueItems": False},
    {"uniqueItems": True, "maxItems": 1},
    {"if": {"type": "string"}},
    {"then": False},
    {"contains": True, "minContains": 0},
    {"minContains": 3},
    {"propertyNames": {"type": "string"}},
    {"dependentRequired": {}},
    {"unevaluatedProperties": True},
    {"type": "integer", "format": "int32"},
    {"type": "string", "uniqueItems": True},
    {"title": "t", "description": "d", "default": 1, "examples": [1], "deprecated": True, "$comment": "c"},
    {"prefixItems": []},
    {"nullable": True, "x-order": 1, "discriminator": {"propertyName": "kind"}},
    {"$defs": {"unused": {"not": {}, "uniqueItems": True}}},
]


def refusal(schema: object, *, is_strict: bool = True) -> str:
    """Why a schema is refused."""
    with pytest.raises(ConstraintRefused) as refused:
        judge_schema(schema, is_strict=is_strict)
    return str(refused.value)


@pytest.mark.parametrize("name", ENFORCED)
def test_what_is_enforced_holds_answers_to_it(name: str) -> None:
    schema, good, bad = ENFORCED[name]

    matcher = matcher_for(judge_schema(schema, is_strict=True))

    assert [text for text in good if not fits(matcher, text)] == []
    assert [text for text in bad if fits(matcher, text)] == []


def test_every_enforced_keyword_of_the_table_is_tried() -> None:
    enforced = {
        name for name, keyword in KEYWORDS.items() if keyword.enforcement in (Enforcement.YES, Enforcement.PARTLY)
    }
    not_enforced = {name for name, keyword in KEYWORDS.items() if keyword.enforcement is Enforcement.NO}

    assert enforced - ENFORCED.keys() == set()
    assert not_enforced - UNENFORCED.keys() == {"then", "else", "minContains", "maxContains"}


@pytest.mark.parametrize("keyword", UNENFORCED)
def test_what_is_not_enforced_is_refused_where_it_is_strict_and_named_elsewhere(keyword: str) -> None:
    schema = {"type": "object", "properties": {"a": UNENFORCED[keyword]}, "additionalProperties": False}

    assert f"In context=('properties', 'a'), '{keyword}' " in refusal(schema)
    judged = judge_schema(schema, is_strict=False)

    assert judged.unenforced == (keyword,)
    assert fits(matcher_for(judged), "{}")


@pytest.mark.parametrize("schema", FREE, ids=json.dumps)
def test_values_that_ask_for_nothing_are_free(schema: dict[str, object]) -> None:
    assert judge_schema(schema, is_strict=True).unenforced == ()


@pytest.mark.parametrize(
    ("schema", "part_of_message"),
    [
        ({"type": "strnig"}, "'type' must be one or several of null, boolean"),
        (
            {"properties": {"a": {"required": "b"}}},
            "In context=('properties', 'a'), 'required' must be an array of strings",
        ),
        ({"properties": []}, "'properties' must be an object"),
        ({"items": {"anyOf": []}}, "In context=('items',), 'anyOf' must be an array of schemas"),
        ({"minLength": -1}, "'minLength' must be a whole number"),
        ({"maxItems": True}, "'maxItems' must be a whole number"),
        ({"multipleOf": 0}, "'multipleOf' must be a number above 0"),
        ({"$ref": "#/$defs/nothing"}, "'$ref' names nothing in this schema: #/$defs/nothing"),
        ({"properties": {"a": 3}}, "In context=('properties', 'a'), a schema must be an object or a boolean"),
        ([], "a schema must be an object or a boolean"),
        (False, "no finite value fits it"),
        ({"not": {}}, "no finite value fits it"),
        ({"enum": []}, "no finite value fits it"),
        ({"$ref": "#"}, "no finite value fits it"),
        ({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}, "no finite value fits it"),
        ({"type": "array", "minItems": 2, "prefixItems": [True], "items": {"$ref": "#"}}, "no finite value fits it"),
        ({"type": "string", "const": 1}, "Unsatisfiable schema"),
        ({"type": "string", "const": "a\u0000b"}, "no finite value fits it"),
        ({"minLength": 3, "maxLength": 2, "type": "string"}, "Unsatisfiable schema"),
    ],
)
def test_schemas_that_are_wrong_or_that_nothing_fits_are_refused_strict_or_not(
    schema: object, part_of_message: str
) -> None:
    assert part_of_message in refusal(schema)
    assert part_of_message in refusal(schema, is_strict=False)


def test_a_schema_of_too_many_or_too_deep_schemas_is_refused() -> None:
    wide = {"anyOf": [{"minimum": index} for index in range(30_000)]}
    deep: object = True
    for _ in range(120):
        deep = {"items": deep}

    assert "more than 20000 schemas" in refusal(wide, is_strict=False)
    assert "nested more than 100 deep" in refusal(deep, is_strict=False)


def test_after_one_blank_no_other_may_follow() -> None:
    matcher = matcher_for(judge_schema({"type": "object", "additionalProperties": {"type": "integer"}}, is_strict=True))
    blanks = set(b" \t\r\n")

    seen = {}
    for text in ('{"a"', '{"a":', '{"a": ', '{"a":1', '{"a":1,', '{"a":1, ', '{"a":1}', "{"):
        state = matcher.deep_copy()
        state.try_consume_tokens(list(text.encode()))
        seen[text] = allowed(state) & blanks

    assert {text for text, found in seen.items() if found} == {'{"a":', '{"a":1,'}
    assert seen['{"a":'] == seen['{"a":1,'] == set(b" ")


def test_options_of_the_compiler_in_a_schema_are_removed() -> None:
    schema = {"x-guidance": {"whitespace_flexible": True, "lenient": True}, "type": "array", "uniqueItems": True}

    judged = judge_schema(schema, is_strict=False)

    assert judged.unenforced == ("uniqueItems",)
    assert not fits(matcher_for(judged), "[ ]")


def test_a_pattern_that_the_compiler_reads_otherwise_is_not_enforced() -> None:
    for pattern in ("[a&&b]", "[[:alpha:]]", "^[a-z--x]$", "a\\x00b", "a\x01b", "\\a", "[\\u0001]"):
        assert "'pattern'" in refusal({"type": "string", "pattern": pattern}), pattern
    for pattern in ("[^\\x00-\\x1f]", "\\[a&&b\\]", "a-b--c", "\\x41", "\\n\\t"):
        assert judge_schema({"type": "string", "pattern": pattern}, is_strict=True).unenforced == (), pattern


def test_multiples_are_enforced_together_while_32_bits_hold_their_product() -> None:
    def both(*multiples: float) -> dict[str, object]:
        return {"type": "number", "allOf": [{"multipleOf": multiple} for multiple in multiples]}

    matcher = matcher_for(judge_schema(both(4, 6, 0.5), is_strict=True))

    assert (fits(matcher, "12"), fits(matcher, "6")) == (True, False)
    for multiples in ((9999, 9998, 9997), (7, 1e-9)):
        assert "'multipleOf'" in refusal(both(*multiples))


def test_a_value_that_cannot_be_written_is_no_choice() -> None:
    matcher = matcher_for(judge_schema({"enum": ["a\u0001b", "c"]}, is_strict=True))

    assert fits(matcher, '"c"')
    assert not fits(matcher, '"ab"')


def test_without_patterns_other_names_are_not_forbidden() -> None:
    schema = {**_CLOSED, "patternProperties": {"^(?!x)": {"type": "integer"}}, "required": ["a"]}

    judged = judge_schema(schema, is_strict=False)

    assert judged.unenforced == ("patternProperties",)
    assert fits(matcher_for(judged), '{"a":"b"}')


def test_intersections_that_cannot_be_compiled_are_left_out_and_named() -> None:
    tree = {"$ref": "#/$defs/tree", "properties": {"a": {"$ref": "#/$defs/tree"}}, "required": ["b"]}
    schema = {"$ref": "#/$defs/tree", "$defs": {"tree": {"type": "object", "properties": {"a": tree}}}}

    assert "'$ref' cannot be enforced" in refusal(schema)
    assert "$ref" in judge_schema(schema, is_strict=False).unenforced
    typed = {"type": "object", "properties": {"a": {"type": ["object", "null"], "$ref": "#"}}}
    assert judge_schema(typed, is_strict=False).unenforced == ("type",)


def test_a_property_whose_intersection_with_a_pattern_cannot_be_compiled_is_left_to_its_own_schema() -> None:
    tree = {"type": "object", "properties": {"a": {"$ref": "#"}}, "patternProperties": {"^[ab]$": {"$ref": "#"}}}

    assert "patternProperties" in refusal(tree)
    judged = judge_schema(tree, is_strict=False)

    assert judged.unenforced == ("patternProperties",)
    assert fits(matcher_for(judged), '{"a":{"a":{}}}')


def test_an_inner_schema_with_an_id_is_the_root_of_its_references() -> None:
    inner = {"$id": "inner", "items": {"$ref": "#/$defs/n"}, "type": "array", "$defs": {"n": {"type": "integer"}}}
    schema = {"properties": {"a": inner}, **_CLOSED, "$defs": {"n": {"type": "string"}}}

    matcher = matcher_for(judge_schema(schema, is_strict=True))

    assert fits(matcher, '{"a":[1]}')
    assert not fits(matcher, '{"a":["x"]}')
