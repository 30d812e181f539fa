"""Tools over HTTP: judged before a job exists, shown in objects and streams, and calls of a worker's text."""

from typing import Any

import httpx2
import openai
import pytest

from tests.api.fake_worker import FakeWorker

QUESTION = [{"role": "user", "content": "Oslo?"}]
SCHEMA: dict[str, Any] = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
CALL = ("<tool_", 'call>\n{"name": "wea', 'ther", "arguments": {"city": "O', 'slo"}}', "\n</tool_call>")


def function(name: str = "weather", **fields: object) -> dict[str, object]:
    return {"type": "function", "function": {"name": name, **fields}}


def custom(definition: str, syntax: str = "lark") -> dict[str, object]:
    grammar = {"type": "grammar", "grammar": {"syntax": syntax, "definition": definition}}
    return {"type": "custom", "custom": {"name": "shell", "format": grammar}}


REFUSED = [
    (
        {"tools": [function(strict=True, parameters=SCHEMA | {"not": {"required": ["x"]}})]},
        "invalid_function_parameters",
        "tools[0].function.parameters",
    ),
    (
        {"tools": [function(parameters={"type": "string"})]},
        "invalid_function_parameters",
        "tools[0].function.parameters",
    ),
    ({"tools": [custom("start: (")]}, "invalid_grammar", "tools[0].custom.format.grammar.definition"),
    ({"tools": [custom("(", "regex")]}, "invalid_grammar", "tools[0].custom.format.grammar.definition"),
    ({"tool_choice": "required"}, "invalid_tool_choice", "tool_choice"),
    (
        {"tools": [function()], "tool_choice": {"type": "function", "function": {"name": "x"}}},
        "invalid_tool_choice",
        "tool_choice",
    ),
    ({"tools": [{"type": "web_search"}]}, "unsupported_parameter", "tools[0].type"),
    ({"tools": [function(), function()]}, "invalid_request", "tools"),
    ({"functions": [{"name": "f"}]}, "unsupported_parameter", "functions"),
]


@pytest.mark.parametrize(
    ("fields", "code", "param"), REFUSED, ids=[f"{row[1]}-{index}" for index, row in enumerate(REFUSED)]
)
def test_wrong_tools_are_refused_before_a_job_exists(
    http: httpx2.Client, worker: FakeWorker, fields: dict[str, object], code: str, param: str
) -> None:
    answer = http.post("/v1/chat/completions", json={"model": "demo", "messages": QUESTION, **fields})

    assert answer.status_code == 400
    assert (answer.json()["error"]["code"], answer.json()["error"]["param"]) == (code, param)
    assert worker.num_claimed == 0


def test_what_a_schema_of_a_tool_does_not_enforce_is_named(http: httpx2.Client) -> None:
    tools = [function(parameters=SCHEMA | {"not": {"required": ["x"]}})]

    answer = http.post("/v1/chat/completions", json={"model": "demo", "messages": QUESTION, "tools": tools})

    assert answer.headers["tokenpost-unenforced"] == "not"


def test_a_call_is_an_item_and_its_result_continues_the_response(client: openai.OpenAI, worker: FakeWorker) -> None:
    worker.words = CALL
    tools: Any = [
        {"type": "function", "name": "weather", "parameters": SCHEMA},
        {"type": "function", "name": "f", "parameters": SCHEMA | {"not": {"required": ["x"]}}},
    ]

    first = client.responses.create(model="demo", input="Oslo?", tools=tools, parallel_tool_calls=False)
    (call,) = first.output
    assert call.type == "function_call"
    assert (call.name, call.arguments, call.status) == ("weather", '{"city": "Oslo"}', "completed")
    assert [getattr(tool, "strict", None) for tool in first.tools] == [True, False]
    assert first.parallel_tool_calls is False
    assert worker.specs[-1].output is not None
    assert worker.specs[-1].output.grammar is not None

    worker.words = ("It ", "rains.")
    result: Any = [{"type": "function_call_output", "call_id": call.call_id, "output": "rain"}]
    second = client.responses.create(model="demo", input=result, previous_response_id=first.id, tools=tools)
    assert second.output_text == "It rains."
    with pytest.raises(openai.BadRequestError, match="No tool output found for function call call_"):
        client.responses.create(model="demo", input="And?", previous_response_id=first.id)


def test_streams_and_stored_chats_show_the_call(client: openai.OpenAI, worker: FakeWorker) -> None:
    worker.words = CALL
    asked: Any = {"model": "demo", "messages": QUESTION, "tools": [function(parameters=SCHEMA)], "store": True}

    with client.chat.completions.stream(**asked) as stream:
        final = stream.get_final_completion()
    stored = client.chat.completions.retrieve(final.id)

    assert final.choices[0].finish_reason == stored.choices[0].finish_reason == "tool_calls"
    ours, theirs = final.choices[0].message.tool_calls, stored.choices[0].message.tool_calls
    assert ours is not None
    assert theirs is not None
    assert ours[0].id == theirs[0].id
    assert ours[0].function.arguments == '{"city": "Oslo"}'


def test_markup_is_text_where_no_tools_are_declared(client: openai.OpenAI, worker: FakeWorker) -> None:
    """N05."""
    worker.words = CALL

    whole = client.chat.completions.create(model="demo", messages=QUESTION)  # type: ignore[arg-type] # a message
    none = client.chat.completions.create(
        model="demo",
        messages=QUESTION,  # type: ignore[arg-type] # a message
        tools=[function()],  # type: ignore[list-item] # a tool
        tool_choice="none",
    )

    for answer in (whole, none):
        assert answer.choices[0].message.content == "".join(CALL)
        assert answer.choices[0].message.tool_calls is None
