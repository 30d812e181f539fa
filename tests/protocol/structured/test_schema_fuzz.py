"""Random schemas: what we call enforceable is compiled, and what is written under it is valid for another validator."""

import json
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from api.protocol.structured.compiling import grammar_of, refusal_of
from api.protocol.structured.constraints import ConstraintRefused
from api.protocol.structured.judging import judge_schema, schema_part
from api.protocol.structured.schemas.normal_form import NormalForm
from tests.protocol.structured.texts import matcher_for, random_text

_NAMES = st.sampled_from(["a", "b", "c", "é", 'q"', "a/b"])
_SMALL = st.integers(0, 4)
_NUMBERS = st.one_of(st.integers(-30, 30), st.sampled_from([0.5, -1.25, 3.75, 100.0, 1e-3, 12345.678]))
_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), _NUMBERS, st.text('ab\n\\é"', max_size=3)),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(_NAMES, inner, max_size=2)),
    max_leaves=4,
)
_PATTERNS = st.sampled_from(["^a", "b$", "^[ab]{1,3}$", "x|y", "^$", "\\d", "^\\w+-\\w+$", "[^a]", "^(a|b)*$"])
_FORMATS = st.sampled_from(["date", "time", "date-time", "ipv4", "uuid"])


def _some(**keywords: st.SearchStrategy[object]) -> st.SearchStrategy[dict[str, object]]:
    return st.fixed_dictionaries({}, optional=keywords)


def _schemas() -> st.SearchStrategy[object]:
    leaves = st.one_of(
        st.just(True),
        st.just({"$ref": "#/$defs/node"}),
        _some(const=_VALUES),
        st.lists(_VALUES, min_size=1, max_size=4).map(lambda values: {"enum": values}),
        _some(minLength=_SMALL, maxLength=st.integers(3, 9)).map(lambda some: {"type": "string", **some}),
        _some(pattern=_PATTERNS, maxLength=st.integers(3, 9)).map(lambda some: {"type": "string", **some}),
        _FORMATS.map(lambda name: {"type": "string", "format": name}),
        _some(minimum=_NUMBERS, maximum=_NUMBERS, multipleOf=st.sampled_from([1, 2, 0.5, 7])).map(
            lambda some: {"type": "integer", **some}
        ),
        _some(exclusiveMinimum=_NUMBERS, exclusiveMaximum=_NUMBERS, minimum=_NUMBERS).map(
            lambda some: {"type": "number", **some}
        ),
    )
    return st.recursive(leaves, _composed, max_leaves=8)


def _composed(inner: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    branches = st.lists(inner, min_size=1, max_size=3)
    array = _some(
        items=inner, prefixItems=branches, minItems=_SMALL, maxItems=_SMALL, uniqueItems=st.booleans(), contains=inner
    )
    named = _some(
        properties=st.dictionaries(_NAMES, inner, max_size=3),
        required=st.lists(_NAMES, max_size=2),
        additionalProperties=st.one_of(st.booleans(), inner),
        patternProperties=st.dictionaries(st.sampled_from(["^a", "^b", "c$", "^x"]), inner, max_size=2),
        minProperties=_SMALL,
        maxProperties=_SMALL,
    )
    return st.one_of(
        named.map(lambda some: {"type": "object", **some}),
        array.map(lambda some: {"type": "array", **some}),
        named,
        st.tuples(_some(anyOf=branches, oneOf=branches, allOf=branches), named).map(
            lambda both: {**both[0], **both[1]}
        ),
        st.tuples(
            _some(type=st.sampled_from(["object", ["array", "null"]])), _some(anyOf=branches, allOf=branches)
        ).map(lambda both: {**both[0], **both[1]}),
    )


def _document(schema: object, node: object) -> dict[str, object]:
    return {**(schema if isinstance(schema, dict) else {}), "$defs": {"node": node}}


@given(_schemas(), _schemas(), st.integers(0, 2**32))
@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
def test_what_is_written_under_an_enforced_schema_is_valid(schema: object, node: object, seed: int) -> None:
    document = _document(schema, node)
    try:
        judged = judge_schema(document, is_strict=True)
    except ConstraintRefused:
        return
    validator = Draft202012Validator(document, format_checker=Draft202012Validator.FORMAT_CHECKER)

    text = random_text(matcher_for(judged), random.Random(seed))

    if text is not None:
        assert [error.message for error in validator.iter_errors(json.loads(text))] == [], text


@given(_schemas(), _schemas())
@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_compiler_knows_every_keyword_that_is_kept(schema: object, node: object) -> None:
    form = NormalForm(_document(schema, node))
    root = form.read()
    try:
        refusal = refusal_of(grammar_of(schema_part(root))) or ""
    except ConstraintRefused:
        return

    # What only the compiler finds out: empty intersections, and those that lead back to themselves.
    known = ("Unsatisfiable", "circular", "stack level", "no text", "min/maxProperties", "not disjoint", "disjoint")
    assert refusal == "" or any(word in refusal for word in known), refusal


@pytest.mark.parametrize("seed", range(20))
def test_an_empty_schema_gives_any_json(seed: int) -> None:
    text = random_text(matcher_for(judge_schema({}, is_strict=True)), random.Random(seed))

    if text is not None:
        json.loads(text)
