"""Regular expressions, choices and grammars of callers."""

import json

import pytest

from api.protocol.structured.constraints import (
    MAX_GRAMMAR_BYTES,
    MAX_SCHEMA_BYTES,
    Constraint,
    ConstraintKind,
    ConstraintRefused,
    Judged,
    refusal_error,
    refuse_large,
    unenforced_of,
)
from api.protocol.structured.judging import judge
from storage.errors import InvalidFunctionParameters, InvalidGrammar, InvalidJsonSchema
from tests.protocol.structured.texts import allowed, fits, matcher_for

_GBNF = 'root ::= "yes" | "no" tail?\ntail ::= [ \\t]+ "sir"\n'


def constraint(kind: ConstraintKind, text: str) -> Constraint:
    """A constraint of the answer."""
    return Constraint(param="structured_outputs.x", title="structured_outputs.x", kind=kind, text=text)


def judged(kind: ConstraintKind, text: str) -> Judged:
    """Its judgment."""
    return judge(constraint(kind, text))


def refusal(kind: ConstraintKind, text: str) -> str:
    """Why it is refused."""
    with pytest.raises(ConstraintRefused) as refused:
        judged(kind, text)
    return str(refused.value)


@pytest.mark.parametrize(
    ("kind", "text", "good", "bad"),
    [
        (ConstraintKind.REGEX, 'a/b\\d{2}|\\w+\n"', ["a/b12", 'xy\n"'], ["a/b1", "a/b123", ""]),
        (ConstraintKind.REGEX, "(?s:.*)", ["", "a\nb", "é"], []),
        (
            ConstraintKind.CHOICE,
            json.dumps(["yes", 'a "b"\\', "é\n", "yes"]),
            ["yes", 'a "b"\\', "é\n"],
            ["no", "yesyes"],
        ),
        (ConstraintKind.LARK, 'start: "a" B*\nB: /[0-9]/', ["a", "a12"], ["", "1", "ab"]),
        (ConstraintKind.LARK, 'start: "x [temperature=" /[0-9]/ "]"', ["x [temperature=1]"], ["x"]),
        (ConstraintKind.LARK, 'start: "<x>" /<[12]>/', ["<x><2>", "<x><1>"], ["<x>"]),
        (ConstraintKind.LARK, 'start: %json {"type":"array","maxItems":1}', ["[]", "[1]"], ["[1,2]"]),
        (ConstraintKind.LARK, 'start: %json {"maxItems":1,"type":"array"}', ["[ 1\n]"], []),
        (
            ConstraintKind.LARK,
            'start: %json {"x-guidance":{"whitespace_flexible":false},"type":"array"}',
            ["[1,2]"],
            ["[ 1]"],
        ),
        (ConstraintKind.GRAMMAR, 'start: "a" | "b"', ["a", "b"], ["c"]),
        (ConstraintKind.GRAMMAR, _GBNF, ["yes", "no", "no \tsir"], ["nosir", "yes sir"]),
    ],
)
def test_a_grammar_allows_its_texts_and_no_others(
    kind: ConstraintKind, text: str, good: list[str], bad: list[str]
) -> None:
    matcher = matcher_for(judged(kind, text))

    assert [one for one in good if not fits(matcher, one)] == []
    assert [one for one in bad if fits(matcher, one)] == []


@pytest.mark.parametrize(
    ("kind", "text", "part_of_message"),
    [
        (ConstraintKind.REGEX, "a(?=b)", "look-around"),
        (ConstraintKind.REGEX, "(a)\\1", "backreferences are not supported"),
        (ConstraintKind.REGEX, "a(b", "unclosed group"),
        (ConstraintKind.REGEX, "[a&&b]", "no text fits it"),
        (ConstraintKind.LARK, "start: b", "unknown name"),
        (ConstraintKind.LARK, "begin: /a/", "start"),
        (ConstraintKind.LARK, "start: @call_0", "unknown grammar"),
        (ConstraintKind.LARK, "start: <|im_end|>", "unknown special token"),
        (ConstraintKind.LARK, 'start: "a" <[5]>', "names tokens of a vocabulary"),
        (ConstraintKind.LARK, 'start: "a" <[*]>', "names tokens of a vocabulary"),
        (ConstraintKind.LARK, "start: a\na: b\nb: a", "no text fits it"),
        (ConstraintKind.LARK, 'start: "a" start', "Too many items"),
        (ConstraintKind.LARK, 'start: %json {"uniqueItems": true}', "uniqueItems"),
        (ConstraintKind.LARK, "start: " + "(" * 99 + '"a"' + ")" * 99, "too deeply nested"),
        (ConstraintKind.LARK, "%declare X\nstart: X", "declare"),
        (ConstraintKind.LARK, "start: x\nx[max_tokens=3,\ntemperature=0.5]: /a*/", "'temperature'"),
        (ConstraintKind.GRAMMAR, 'start[temperature=0.5]: "a"', "'temperature'"),
        (ConstraintKind.LARK, 'start: "\ufdd0"', "U+FDD0"),
        (ConstraintKind.REGEX, r"a\u{FDD0}", "U+FDD0"),
        (ConstraintKind.CHOICE, r'["a\ufdd0"]', "U+FDD0"),
        (ConstraintKind.GRAMMAR, 'root ::= "a', "Unexpected end of input"),
        (ConstraintKind.GRAMMAR, "root ::= " + "(" * 3000 + '"a"' + ")" * 3000, "nested too deeply"),
        (ConstraintKind.SCHEMA, "{", "not JSON"),
    ],
)
def test_what_does_not_compile_is_refused_with_the_reason(
    kind: ConstraintKind, text: str, part_of_message: str
) -> None:
    assert part_of_message in refusal(kind, text)


def test_after_the_text_only_the_end_may_follow() -> None:
    matcher = matcher_for(judged(ConstraintKind.CHOICE, '["a"]'))
    matcher.consume_token(ord("a"))

    assert allowed(matcher) == {256}


def test_a_choice_may_be_the_empty_text() -> None:
    assert allowed(matcher_for(judged(ConstraintKind.CHOICE, '["", "b"]'))) == {ord("b"), 256}


def test_errors_name_field_title_and_reason_with_the_code_of_their_kind() -> None:
    schema = Constraint(
        param="tools[0].function.parameters", title="function 'f'", kind=ConstraintKind.SCHEMA, text="{}", is_tool=True
    )
    of_answer = Constraint(param="response_format", title="response_format 'p'", kind=ConstraintKind.SCHEMA, text="{}")
    errors = [
        refusal_error(schema, "why"),
        refusal_error(of_answer, "w" * 1000),
        refusal_error(constraint(ConstraintKind.REGEX, "("), "why"),
    ]

    assert [type(error) for error in errors] == [InvalidFunctionParameters, InvalidJsonSchema, InvalidGrammar]
    assert (errors[0].message, errors[0].param) == ("Invalid schema for function 'f': why.", schema.param)
    assert errors[1].message.startswith("Invalid schema for response_format 'p': www")
    assert len(errors[1].message) < 700
    assert errors[2].message == "Invalid regex for structured_outputs.x: why."


def test_large_constraints_are_refused_by_themselves_and_together() -> None:
    fine = constraint(ConstraintKind.SCHEMA, "x" * MAX_SCHEMA_BYTES)

    refuse_large((fine,) * 4)
    for wrong in ((fine,) * 5, (constraint(ConstraintKind.SCHEMA, "é" * MAX_SCHEMA_BYTES),)):
        with pytest.raises(InvalidJsonSchema, match="bytes"):
            refuse_large(wrong)
    with pytest.raises(InvalidGrammar, match="more than 131072"):
        refuse_large((constraint(ConstraintKind.LARK, "x" * (MAX_GRAMMAR_BYTES + 1)),))


def test_keywords_of_several_constraints_are_named_once() -> None:
    first, second = Judged(part="{}", unenforced=("not", "if")), Judged(part="{}", unenforced=("if", "contains"))

    assert unenforced_of({"a": first, "b": second}) == ("not", "if", "contains")
