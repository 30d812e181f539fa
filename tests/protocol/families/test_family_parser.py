"""Parsers of families: the same segments however the text is cut, and text for whatever is no call."""

import json
import time
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.protocol.answer.segments import CallArguments, CallClosed, CallOpened, Reasoning, Segment, Text
from api.protocol.families.family_table import FAMILIES
from api.protocol.families.parsing.family_parser import FamilyParser
from api.protocol.families.parsing.parser_plan import CallableTool
from storage.contract import MARKER_SIGN
from tests.protocol.families.recorded import (
    NAMES,
    RECORDED,
    TOOLS,
    Reader,
    as_written,
    bound_to_tokens,
    call,
    joined,
    parsed,
)

CASES = [
    pytest.param(*recorded, has_tokens, id=f"{recorded[0]}-{index}-{'tokens' if has_tokens else 'letters'}")
    for index, recorded in enumerate(RECORDED)
    for has_tokens in (True, False)
]


@pytest.mark.parametrize(("name", "state", "output", "segments", "has_tokens"), CASES)
def test_an_answer_is_read_however_it_is_cut(
    name: str, state: str, output: str, segments: Sequence[Segment], has_tokens: bool
) -> None:
    bound = bound_to_tokens(FAMILIES[name], has_tokens=has_tokens)
    text = as_written(output, bound)

    reader = Reader(bound, state)

    assert reader.read([text]) == segments
    assert reader.read(text) == segments
    assert all(reader.read([text[:cut], text[cut:]]) == segments for cut in range(len(text)))


@pytest.mark.parametrize("name", NAMES)
def test_all_pairs_of_cuts_give_one_result(name: str) -> None:
    bound = bound_to_tokens(FAMILIES[name], has_tokens=False)
    _, state, output, segments = min((one for one in RECORDED if one[0] == name), key=lambda one: len(one[2]))
    reader, places = Reader(bound, state), range(len(output) + 1)

    wrong = [
        (low, high)
        for low in places
        for high in places[low:]
        if reader.read([output[:low], output[low:high], output[high:]]) != segments
    ]

    assert wrong == []


@pytest.mark.parametrize("name", NAMES)
def test_what_is_held_back_may_begin_a_marker(name: str) -> None:
    bound = bound_to_tokens(FAMILIES[name], has_tokens=False)
    assert bound.family.calls is not None
    trigger, opening = bound.family.calls.trigger, "" if bound.family.answer is None else bound.family.answer.opening
    for length in range(1, len(trigger)):
        parser = FamilyParser(bound.family, tools=TOOLS)
        given = joined([*parser.push(0, opening + "ab" + trigger[:length], ())])
        ended = joined([*given, *parser.close(0)])

        assert ended == [Text("ab" + trigger[:length])]
        if not opening:
            assert given == [Text("ab")]


def test_text_that_begins_like_a_marker_goes_on_as_text() -> None:
    bound = bound_to_tokens(FAMILIES["hermes"], has_tokens=False)
    parser = FamilyParser(bound.family, tools=TOOLS)

    given = [parser.push(0, piece, ()) for piece in ("a <tool_", "x", "<thin", "g>", " ")]

    assert given == [[Text("a")], [Text(" <tool_x")], [], [Text("<thing>")], []]
    assert parser.close(0) == [Text(" ")]


def test_letters_are_no_marker_where_the_marker_is_a_token() -> None:
    bound = bound_to_tokens(FAMILIES["hermes"], has_tokens=True)
    text = 'Write `<tool_call>` and </think>.\n<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'

    assert parsed(bound, [text]) == [Text(text)]


def test_without_tools_a_call_is_text() -> None:
    bound = bound_to_tokens(FAMILIES["hermes"], has_tokens=False)
    text = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'

    assert parsed(bound, [text], tools=()) == [Text(text)]


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>\nnonsense\n</tool_call> and more",
        '<tool_call>{"name": "unknown", "arguments": {}}</tool_call>',
        '<tool_call>{"name": "weather2", "arguments": {}}</tool_call>',
        '<tool_call>{"name": 5}</tool_call>',
        "<tool_call><tool_call",
        '<tool_call>\n{"name": "wex',
        "<tool_call>\n<custom=weather>\nx\n</custom>\n</tool_call>",
        "<tool_call>x",
        "<tool_call>" * 40 + "x",
        "<tool_cal",
    ],
)
def test_what_is_no_call_is_text_once_and_whole(text: str) -> None:
    bound = bound_to_tokens(FAMILIES["hermes"], has_tokens=False)

    assert parsed(bound, [text]) == [Text(text)]
    assert parsed(bound, list(text)) == [Text(text)]


@pytest.mark.parametrize("head", ["", "\n", '\n{"na', '\n{"name": "wea', '\n{"name": "weather'])
def test_a_call_that_is_cut_before_its_name_is_complete_is_not_shown(head: str) -> None:
    for has_tokens in (True, False):
        bound = bound_to_tokens(FAMILIES["hermes"], has_tokens=has_tokens)
        assert parsed(bound, [as_written(f"Ok.\n<tool_call>{head}", bound)]) == [Text("Ok.")]


def test_a_call_after_an_unreadable_one_is_a_call() -> None:
    bound = bound_to_tokens(FAMILIES["hermes"], has_tokens=False)
    good = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'

    assert parsed(bound, ["<tool_call>oops</tool_call> " + good]) == [
        Text("<tool_call>oops</tool_call>"),
        *call("now", "{}"),
    ]


def test_a_call_that_is_cut_keeps_its_arguments_and_stays_open() -> None:
    bound = bound_to_tokens(FAMILIES["hermes"], has_tokens=False)

    cut = parsed(bound, ['<tool_call>\n{"name": "weather", "arguments": {"city": "Os'])

    assert cut == [CallOpened("weather"), CallArguments('{"city": "Os')]


def test_a_name_is_given_as_soon_as_it_is_complete_and_arguments_as_they_come() -> None:
    bound = bound_to_tokens(FAMILIES["hermes"], has_tokens=False)
    parser = FamilyParser(bound.family, tools=TOOLS)

    given = [
        list(parser.push(0, piece, ()))
        for piece in ('<tool_call>\n{"name": "weather', '"', ', "arguments": {"ci', 'ty": "O', 'slo"}', "}")
    ]

    assert given == [
        [],
        [CallOpened("weather")],
        [CallArguments('{"ci')],
        [CallArguments('ty": "O')],
        [CallArguments('slo"}'), CallClosed()],
        [],
    ]


def test_tagged_strings_stream_and_other_values_are_cast_at_their_end() -> None:
    bound = bound_to_tokens(FAMILIES["qwen3_coder"], has_tokens=False)
    parser = FamilyParser(bound.family, tools=TOOLS)
    pieces = (
        "<tool_call>\n<function=weather>\n<parameter=city>\nOs",
        "lo",
        "\n</parameter>\n<parameter=days>\n1",
        "2\n</par",
    )

    given = [joined(parser.push(0, piece, ())) for piece in pieces]

    assert given == [
        [CallOpened("weather"), CallArguments('{"city": "Os')],
        [CallArguments("lo")],
        [CallArguments('", "days": ')],
        [],
    ]
    assert joined(parser.push(0, "ameter>\n</function>", ())) == [CallArguments("12}"), CallClosed()]


@pytest.mark.parametrize(
    ("schema", "raw", "value"),
    [
        ({"type": "integer"}, "12", 12),
        ({"type": "integer"}, "1.5", "1.5"),
        ({"type": "number"}, "1.5", 1.5),
        ({"type": "boolean"}, "True", True),
        ({"type": ["null", "integer"]}, "null", None),
        ({"type": "object"}, '{"a": [1]}', {"a": [1]}),
        ({"anyOf": [{"type": "integer"}, {"type": "string"}]}, "7", 7),
        ({"$ref": "#/$defs/n"}, "7", 7),
        ({"enum": ["a", "b"]}, "7", "7"),
        ({"type": "number"}, "NaN", "NaN"),
        ({"type": "array"}, "[" * 50_000, "[" * 50_000),
        ({}, "7", "7"),
    ],
)
def test_a_tagged_value_has_the_type_of_the_schema(schema: dict[str, object], raw: str, value: object) -> None:
    bound = bound_to_tokens(FAMILIES["qwen3_coder"], has_tokens=False)
    parameters = {"properties": {"x": schema}, "$defs": {"n": {"type": "integer"}}}
    text = f"<tool_call>\n<function=f>\n<parameter=x>\n{raw}\n</parameter>\n</function>\n</tool_call>"

    opened, arguments, _ = parsed(bound, [text], tools=[CallableTool(name="f", parameters=parameters)])

    assert opened == CallOpened("f")
    assert isinstance(arguments, CallArguments)
    assert json.loads(arguments.text) == {"x": value}


# fmt: off
_PIECES = [
    "<think>", "</think>", "<tool_call>", "</tool_call>", "\n", " ", "x", '"', "{", "}", "[", "]", ":", ",", "\\",
    "\\u00e9", '{"name": "', 'weather"', "now", ', "arguments": ', "<function=now>", "<parameter=city>\n",
    "</parameter>", "</function>", "<custom=run>\n", "</custom>", "[TOOL_CALLS]", "[ARGS]", "<|python_tag|>",
    "<|channel|>", "analysis", "<|message|>", "<|end|>", "<|tool_call>", "call:now", '<|"|>', "<tool_call|>",
    "<|tool_call_start|>", "now(", "city=", "'", ")", "1", "<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>",
    "<｜tool▁sep｜>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>", "<|tool_calls_section_begin|>",
    "<|tool_call_begin|>", "functions.now:0", '<invoke name="', "é", "\U0001f600",
]
# fmt: on


@given(
    st.sampled_from(NAMES),
    st.booleans(),
    st.sampled_from(["", "thinking"]),
    st.lists(st.sampled_from(_PIECES), max_size=25),
)
def test_any_output_is_read_and_one_character_at_a_time_alike(
    name: str, has_tokens: bool, state: str, pieces: list[str]
) -> None:
    bound = bound_to_tokens(FAMILIES[name], has_tokens=has_tokens)
    text = as_written("".join(pieces), bound)

    whole = parsed(bound, [text], state)

    assert parsed(bound, list(text), state) == whole
    assert parsed(bound, [as_written(piece, bound) for piece in pieces], state) == whole
    texts = [one.text for one in whole if isinstance(one, Text | Reasoning | CallArguments)]
    assert not any(MARKER_SIGN in one for one in texts)


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>\n{"name": "weather", "arguments": {"city": "' + "x" * 1_000_000 + '"}}\n</tool_call>',
        "<tool_call>" * 20_000,
        " " * 200_000,
        "<tool_call>" + " " * 200_000,
        '<tool_call>\n{"name": "weather' * 8_000,
        "<think>" + "</think" * 30_000,
        '<tool_call>\n{"name": "weather", "arguments": ' + '{"a":[' * 30_000,
        "<tool_call>\n<custom=run>\n" + "</custom>" * 20_000,
    ],
    ids=["string", "triggers", "spaces", "spaces-in-a-head", "heads", "thought", "nested", "custom"],
)
def test_a_long_output_takes_time_in_proportion(text: str) -> None:
    def seconds(some: str) -> float:
        parser = FamilyParser(FAMILIES["hermes"], tools=TOOLS)
        started = time.process_time()
        for start in range(0, len(some), 8):
            parser.push(0, some[start : start + 8], ())
        parser.close(0)
        return time.process_time() - started

    quarter, whole = seconds(text[: len(text) // 4]), seconds(text)

    assert whole < 12 * quarter + 0.5
