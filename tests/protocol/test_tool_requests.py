"""Declared tools and choices in both wires: what is taken, what it means, and what is refused by its field."""

import json
from typing import Any

import pytest

from api.protocol.chat.request import ChatRequest
from api.protocol.families.family_table import FAMILIES
from api.protocol.families.grammar.output_grammar import ChoiceMode
from api.protocol.responses.request import ResponseRequest
from api.protocol.structured.constraints import ConstraintKind
from api.protocol.structured.judging import judge
from storage.errors import InvalidFunctionParameters, InvalidRequest, InvalidToolChoice, UnsupportedParameter
from tests.protocol.examples import body

Wire = dict[str, Any]  # Any: JSON of a request
SCHEMA: Wire = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
GRAMMAR: Wire = {"syntax": "lark", "definition": 'start: "a"+'}


def chat_function(name: str, **fields: object) -> Wire:
    return {"type": "function", "function": {"name": name, **fields}}


def chat_custom(name: str, **fields: object) -> Wire:
    return {"type": "custom", "custom": {"name": name, **fields}}


def function(name: str, **fields: object) -> Wire:
    return {"type": "function", "name": name, **fields}


def custom(name: str, **fields: object) -> Wire:
    return {"type": "custom", "name": name, **fields}


def chat(**fields: object) -> ChatRequest:
    return ChatRequest.parse(body(messages=[{"role": "user", "content": "hi"}], **fields))


def response(**fields: object) -> ResponseRequest:
    return ResponseRequest.parse(body(input="hi", **fields))


def test_both_wires_declare_the_same_tools() -> None:
    nested = [
        chat_function("weather", description="Now.", parameters=SCHEMA, strict=True),
        chat_function("clock"),
        chat_custom("shell", format={"type": "text"}),
        chat_custom("sql", description="A query.", format={"type": "grammar", "grammar": GRAMMAR}),
    ]
    flat = [
        function("weather", description="Now.", parameters=SCHEMA, strict=True),
        function("clock", parameters=None),
        custom("shell"),
        custom("sql", description="A query.", format={"type": "grammar", **GRAMMAR}),
    ]

    ours, theirs = chat(tools=nested).tool_set, response(tools=flat).tool_set

    assert [tool.declared for tool in ours.tools] == [tool.declared for tool in theirs.tools]
    assert [one.text for one in ours.constraints] == [one.text for one in theirs.constraints]
    assert [one.param for one in ours.constraints] == [
        "tools[0].function.parameters",
        "tools[1].function.parameters",
        "tools[3].custom.format.grammar.definition",
    ]
    assert [one.param for one in theirs.constraints] == [
        "tools[0].parameters",
        "tools[1].parameters",
        "tools[3].format.definition",
    ]
    assert [one.is_strict for one in ours.constraints] == [True, False, True]
    assert all(one.is_tool for one in ours.constraints)


def test_templates_are_given_the_form_of_chat() -> None:
    tools = [
        chat_function("weather", parameters=SCHEMA, strict=True, output_schema={"type": "string"}),
        chat_function("clock", description="The time."),
        chat_custom("sql", format={"type": "grammar", "grammar": GRAMMAR}),
    ]

    declared = chat(tools=tools).tool_set.declaration(FAMILIES["hermes"])

    empty = {"type": "object", "properties": {}}
    text = {"type": "string", "description": 'Text of this lark grammar:\nstart: "a"+'}
    assert [one["function"] for one in declared.functions] == [
        {"name": "weather", "parameters": SCHEMA, "return": {"type": "string"}},
        {"name": "clock", "description": "The time.", "parameters": empty},
        {"name": "sql", "parameters": {"type": "object", "properties": {"input": text}, "required": ["input"]}},
    ]
    assert declared.custom_names == ("sql",)
    assert declared.custom_example == "<tool_call>\n<custom=sql>\ninput\n</custom>\n</tool_call>"
    assert not declared.is_generic
    assert chat(tools=tools).tool_set.declaration(FAMILIES["generic"]).is_generic


def test_tools_of_a_namespace_are_called_with_it() -> None:
    group = {
        "type": "namespace",
        "name": "crm",
        "description": "Customers.",
        "tools": [function("find", description="Find one.", parameters=SCHEMA), custom("note")],
    }

    tools = response(tools=[group, function("find")]).tool_set

    assert [tool.name for tool in tools.tools] == ["crm.find", "crm.note", "find"]
    assert tools.tools[0].description == "Customers.\nFind one."
    assert tools.constraints[0].param == "tools[0].tools[0].parameters"


@pytest.mark.parametrize(
    "parameters",
    [None, SCHEMA, {}, {"properties": {"a": {"type": "integer"}}}, {"$ref": "#/$defs/a", "$defs": {"a": SCHEMA}}],
)
def test_arguments_are_always_an_object(parameters: Wire | None) -> None:
    (constraint,) = chat(tools=[chat_function("f", parameters=parameters)]).tool_set.constraints

    assert json.loads(constraint.text)["type"] == "object"
    assert judge(constraint).unenforced == ()


def test_grammars_of_custom_tools_are_judged_by_their_syntax() -> None:
    grammars = [{"syntax": "lark", "definition": 'start: "a"+'}, {"syntax": "regex", "definition": "a+"}]
    tools = response(tools=[custom(f"t{i}", format={"type": "grammar", **one}) for i, one in enumerate(grammars)])

    constraints = tools.tool_set.constraints

    assert [one.kind for one in constraints] == [ConstraintKind.LARK, ConstraintKind.REGEX]
    judged = {one.param: judge(one) for one in constraints}
    parts = tools.tool_set.parts(judged)
    assert [(part.name, part.is_custom) for part in parts] == [("t0", True), ("t1", True)]
    assert all(part.part is not None for part in parts)


CHAT_TOOLS = [chat_function("a"), chat_function("b"), chat_custom("c")]
TOOLS = [function("a"), function("b"), custom("c"), {"type": "namespace", "name": "n", "tools": [function("a")]}]
CHOICES = [
    (None, None, ChoiceMode.AUTO, None, False),
    ("auto", "auto", ChoiceMode.AUTO, None, False),
    ("none", "none", ChoiceMode.NONE, None, False),
    ("required", "required", ChoiceMode.REQUIRED, None, False),
    ({"type": "function", "function": {"name": "b"}}, function("b"), ChoiceMode.REQUIRED, {"b"}, True),
    ({"type": "custom", "custom": {"name": "c"}}, custom("c"), ChoiceMode.REQUIRED, {"c"}, True),
    (
        {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [CHAT_TOOLS[0], CHAT_TOOLS[2]]}},
        {"type": "allowed_tools", "mode": "auto", "tools": [function("a"), custom("c")]},
        ChoiceMode.AUTO,
        {"a", "c"},
        False,
    ),
    (None, function("a", namespace="n"), ChoiceMode.REQUIRED, {"n.a"}, True),
    (
        None,
        {"type": "allowed_tools", "mode": "required", "tools": [{"type": "namespace", "name": "n"}]},
        ChoiceMode.REQUIRED,
        {"n.a"},
        False,
    ),
]


@pytest.mark.parametrize(("nested", "flat", "mode", "names", "is_once"), CHOICES)
def test_a_choice_means_the_same_in_both_wires(
    nested: object, flat: object, mode: ChoiceMode, names: set[str] | None, is_once: bool
) -> None:
    requests = [
        response(tools=TOOLS, tool_choice=flat),
        response(tools=TOOLS, tool_choice=flat, parallel_tool_calls=False),
    ]
    if nested is not None or flat is None:
        requests += [
            chat(tools=CHAT_TOOLS, tool_choice=nested),
            chat(tools=CHAT_TOOLS, tool_choice=nested, parallel_tool_calls=False),
        ]  # type: ignore[list-item] # either wire

    for index, request in enumerate(requests):
        choice = request.tool_set.choice
        assert (choice.mode, choice.names) == (mode, None if names is None else frozenset(names))
        assert choice.is_once == (is_once or index % 2 == 1)


@pytest.mark.parametrize("choice", ["none", "auto"])
def test_a_choice_without_tools_is_taken_where_it_demands_none(choice: str) -> None:
    assert chat(tool_choice=choice, parallel_tool_calls=False).tool_set.tools == ()
    assert response(tools=[], tool_choice=choice).tool_set.tools == ()


WRONG_CHOICES = [
    {"tool_choice": "required"},
    {"tools": [], "tool_choice": "required"},
    {"tool_choice": {"type": "function", "function": {"name": "a"}}},
    {"tools": CHAT_TOOLS, "tool_choice": {"type": "function", "function": {"name": "x"}}},
    {"tools": CHAT_TOOLS, "tool_choice": {"type": "custom", "custom": {"name": "a"}}},
    {
        "tools": CHAT_TOOLS,
        "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [chat_function("x")]}},
    },
    {"tools": CHAT_TOOLS, "tool_choice": "required", "response_format": {"type": "json_object"}},
    {"tools": CHAT_TOOLS, "tool_choice": {"type": "function", "function": {"name": "a"}}, "guided_regex": "a"},
]


@pytest.mark.parametrize("fields", WRONG_CHOICES, ids=range(len(WRONG_CHOICES)))
def test_a_choice_that_cannot_be_kept_is_refused(fields: Wire) -> None:
    with pytest.raises(InvalidToolChoice) as refusal:
        _ = chat(**fields).tool_set

    assert (refusal.value.param, refusal.value.code) == ("tool_choice", "invalid_tool_choice")


def test_a_format_goes_with_a_choice_that_allows_text() -> None:
    request = chat(tools=CHAT_TOOLS, response_format={"type": "json_object"})

    assert len(request.constraints) == 3


UNSUPPORTED: list[tuple[Wire, str]] = [
    ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
    ({"tools": [{"type": "mcp", "server_label": "x"}]}, "tools[0].type"),
    ({"tools": [function("a", defer_loading=True)]}, "tools[0].defer_loading"),
    ({"tools": [function("a", allowed_callers=["direct", "programmatic"])]}, "tools[0].allowed_callers"),
    ({"tools": [function("a", **{"async": True})]}, "tools[0].async"),
    ({"tools": [custom("a", **{"async": True})]}, "tools[0].async"),
    ({"tools": [function("a", colour="red")]}, "tools[0].colour"),
    ({"tools": [{"type": "namespace", "name": "n", "tools": [{"type": "tool_search"}]}]}, "tools[0].tools[0].type"),
    ({"tools": [function("a")], "tool_choice": {"type": "web_search_preview"}}, "tool_choice.type"),
]


@pytest.mark.parametrize(("fields", "param"), UNSUPPORTED, ids=[row[1] for row in UNSUPPORTED])
def test_what_is_not_supported_is_named(fields: Wire, param: str) -> None:
    with pytest.raises(UnsupportedParameter) as refusal:
        response(**fields)

    assert refusal.value.param == param
    if param == "tools[0].type":
        assert f"'{fields['tools'][0]['type']}'" in refusal.value.message


WRONG: list[tuple[Wire, str]] = [
    ({"tools": "weather"}, "tools"),
    ({"tools": [5]}, "tools[0]"),
    ({"tools": [{}]}, "tools[0]"),
    ({"tools": [chat_function("")]}, "tools[0].function.name"),
    ({"tools": [chat_function("a b")]}, "tools[0].function.name"),
    ({"tools": [chat_function("a" * 65)]}, "tools[0].function.name"),
    ({"tools": [chat_function("a\n")]}, "tools[0].function.name"),
    ({"tools": [chat_function("a", parameters="{}")]}, "tools[0].function.parameters"),
    ({"tools": [chat_function("a", strict="yes")]}, "tools[0].function.strict"),
    ({"tools": [chat_function("a", description="x" * 65_537)]}, "tools[0].function.description"),
    (
        {"tools": [chat_custom("a", format={"type": "grammar", "grammar": {"syntax": "ebnf", "definition": "x"}})]},
        "tools[0].custom.format.grammar.syntax",
    ),
    ({"tools": [chat_custom("a", format={"type": "json"})]}, "tools[0].custom.format"),
    ({"tools": [chat_custom("a", format="text")]}, "tools[0].custom.format"),
    ({"tools": [chat_function(f"f{number}") for number in range(129)]}, "tools"),
    ({"tools": CHAT_TOOLS, "tool_choice": "always"}, "tool_choice"),
    ({"tools": CHAT_TOOLS, "tool_choice": 5}, "tool_choice"),
    ({"tools": CHAT_TOOLS, "tool_choice": {"type": "function"}}, "tool_choice.function"),
    ({"tools": CHAT_TOOLS, "parallel_tool_calls": "no"}, "parallel_tool_calls"),
    ({"functions": [{"name": "a"}]}, "functions"),
    ({"function_call": {"name": "a"}}, "function_call"),
]


@pytest.mark.parametrize(("fields", "param"), WRONG, ids=range(len(WRONG)))
def test_wrong_tools_are_refused_with_their_field(fields: Wire, param: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        chat(**fields)

    assert refusal.value.param == param


def test_a_wrong_grammar_of_a_custom_tool_is_refused_with_its_field_in_responses() -> None:
    with pytest.raises(InvalidRequest) as refusal:
        response(tools=[custom("a", format={"type": "grammar", "syntax": "lark", "definition": ""})])

    assert refusal.value.param == "tools[0].format.definition"


def test_tools_are_refused_together_for_their_names_and_their_number() -> None:
    groups = [
        {"type": "namespace", "name": f"n{number}", "tools": [function(f"f{index}") for index in range(100)]}
        for number in range(2)
    ]

    for fields in ({"tools": [function("a"), custom("a")]}, {"tools": groups}):
        with pytest.raises(InvalidRequest) as refusal:
            _ = response(**fields).tool_set
        assert refusal.value.param == "tools"


def test_parameters_that_are_no_object_are_refused() -> None:
    for kind in ("string", ["object", "null"], "array"):
        with pytest.raises(InvalidFunctionParameters) as refusal:
            _ = response(tools=[function("f", parameters={"type": kind})]).tool_set
        assert (refusal.value.param, refusal.value.code) == ("tools[0].parameters", "invalid_function_parameters")


def test_what_the_form_of_a_models_calls_does_not_enforce_is_refused_or_named() -> None:
    """A model that writes strings without quotes is held to no pattern of them."""
    schema = {"type": "object", "properties": {"city": {"type": "string", "pattern": "^[A-Z]"}}}
    form = FAMILIES["qwen3_coder"].calls
    lax = chat(tools=[chat_function("weather", parameters=schema)]).tool_set
    strict = chat(tools=[chat_function("weather", parameters=schema, strict=True)]).tool_set
    judged = {one.param: judge(one) for one in lax.constraints}

    assert lax.unenforced(judged, form) == {"tools[0].function.parameters": ("pattern",)}
    assert lax.unenforced(judged, FAMILIES["hermes"].calls) == {}
    with pytest.raises(InvalidFunctionParameters, match="'pattern'"):
        strict.unenforced(judged, form)
