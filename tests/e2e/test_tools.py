"""Tools with the whole platform and the unmodified SDK: any model calls a tool where it must."""

import json
from pathlib import Path
from typing import Any

import pydantic
import pytest
from jsonschema import validate
from openai import OpenAI, pydantic_function_tool
from openai.lib._tools import pydantic_responses_function_tool
from openai.lib.responses_tool_runner import RegisteredFunction, ResponsesToolRunner
from tokenizers import Tokenizer

BUNDLED_TOKENIZER = Path(__file__).parents[2] / "workers" / "model" / "demo" / "tokenizer.json"
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 12},
        "days": {"type": "integer", "minimum": 1, "maximum": 7},
        "unit": {"enum": ["celsius", "fahrenheit"]},
    },
    "required": ["city", "days", "unit"],
    "additionalProperties": False,
}
CHAT_TOOLS: Any = [
    {"type": "function", "function": {"name": "weather", "description": "Of a city.", "parameters": SCHEMA}},
    {"type": "function", "function": {"name": "clock"}},
]
TOOLS: Any = [{"type": "function", "name": "weather", "parameters": SCHEMA}, {"type": "function", "name": "clock"}]
QUESTION = "What is the weather in Oslo?"
MESSAGES: Any = [{"role": "user", "content": QUESTION}]


def check(name: str, arguments: str) -> None:
    """Assert that a call is valid."""
    assert name in ("weather", "clock")
    validate(json.loads(arguments), SCHEMA if name == "weather" else {"const": {}})


@pytest.mark.parametrize("temperature", [0, 1.5])
def test_a_chat_that_must_call_calls(client: OpenAI, temperature: float) -> None:
    answer = client.chat.completions.create(
        model="demo",
        messages=MESSAGES,
        tools=CHAT_TOOLS,
        tool_choice="required",
        parallel_tool_calls=False,
        temperature=temperature,
        seed=1,
        store=True,
    )

    (choice,) = answer.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls is not None
    (call,) = choice.message.tool_calls
    assert call.type == "function"
    check(call.function.name, call.function.arguments)
    assert client.chat.completions.retrieve(answer.id).choices == answer.choices
    result: Any = {"role": "tool", "tool_call_id": call.id, "content": "rain"}
    second = client.chat.completions.create(
        model="demo", messages=[*MESSAGES, choice.message, result], tools=CHAT_TOOLS, tool_choice="none", max_tokens=20
    )
    assert second.choices[0].message.tool_calls is None


def test_a_stream_of_a_chat_is_its_answer(client: OpenAI) -> None:
    asked: Any = {"model": "demo", "messages": MESSAGES, "tools": CHAT_TOOLS, "tool_choice": "required", "seed": 3}
    asked["parallel_tool_calls"] = False

    whole = client.chat.completions.create(**asked).choices[0]
    with client.chat.completions.stream(**asked) as stream:
        streamed = stream.get_final_completion().choices[0]

    assert whole.message.tool_calls is not None
    assert streamed.message.tool_calls is not None
    ours, theirs = whole.message.tool_calls[0], streamed.message.tool_calls[0]
    assert ours.type == "function"
    assert (ours.function.name, ours.function.arguments) == (theirs.function.name, theirs.function.arguments)
    assert streamed.finish_reason == whole.finish_reason == "tool_calls"


def test_a_response_calls_and_goes_on_with_the_result(client: OpenAI) -> None:
    choice: Any = {"type": "function", "name": "weather"}
    with client.responses.stream(model="demo", input=QUESTION, tools=TOOLS, tool_choice=choice) as stream:
        first = stream.get_final_response() if list(stream) else None
    assert first is not None

    (call,) = first.output
    assert call.type == "function_call"
    assert call.status == "completed"
    check(call.name, call.arguments)
    stored = client.responses.retrieve(first.id)
    assert stored.output[0].model_dump() == call.model_dump(exclude={"parsed_arguments"})
    assert [getattr(tool, "strict", None) for tool in stored.tools] == [True, True]

    result: Any = [{"type": "function_call_output", "call_id": call.call_id, "output": "rain"}]
    asked: Any = {"model": "demo", "input": result, "previous_response_id": first.id, "tools": TOOLS}
    counted = client.responses.input_tokens.count(**asked)
    second = client.responses.create(**asked, tool_choice="none", max_output_tokens=20)
    assert second.usage is not None
    assert counted.input_tokens == second.usage.input_tokens
    items = client.responses.input_items.list(second.id, order="asc").data
    assert [item.type for item in items] == ["message", "function_call", "function_call_output"]


@pytest.mark.parametrize("temperature", [0, 1.5])
def test_no_call_can_be_written_where_none_may_be(client: OpenAI, temperature: float) -> None:
    answer = client.chat.completions.create(
        model="demo", messages=MESSAGES, tools=CHAT_TOOLS, tool_choice="none", temperature=temperature, max_tokens=60
    )

    assert answer.choices[0].message.tool_calls is None
    assert "<tool_call>" not in (answer.choices[0].message.content or "")


def test_only_allowed_tools_are_called(client: OpenAI) -> None:
    allowed: Any = {
        "type": "allowed_tools",
        "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "clock"}}]},
    }

    answer = client.chat.completions.create(
        model="demo", messages=MESSAGES, tools=CHAT_TOOLS, tool_choice=allowed, max_tokens=100
    )

    calls = answer.choices[0].message.tool_calls or []
    assert calls
    assert all(call.type == "function" and call.function.name == "clock" for call in calls)


@pytest.mark.parametrize("limit", [3, 20])
def test_a_call_that_the_limit_cuts_says_so(client: OpenAI, limit: int) -> None:
    answer = client.responses.create(
        model="demo", input=QUESTION, tools=TOOLS, tool_choice="required", max_output_tokens=limit
    )

    assert answer.status == "incomplete"
    assert all(item.status == "incomplete" for item in answer.output if item.type == "function_call")


def test_a_custom_tool_writes_text_of_its_grammar(client: OpenAI) -> None:
    grammar = {"type": "grammar", "syntax": "regex", "definition": "SELECT [a-z]{1,5} FROM [a-z]{1,5}"}
    tools: Any = [{"type": "custom", "name": "sql", "format": grammar}]

    with client.responses.stream(model="demo", input="Query.", tools=tools, tool_choice="required") as stream:
        final = stream.get_final_response() if list(stream) else None

    assert final is not None
    call = final.output[0]
    assert call.type == "custom_tool_call"
    assert call.name == "sql"
    words = call.input.split(" ")
    assert (words[0], words[2], len(words)) == ("SELECT", "FROM", 4)


class Forecast(pydantic.BaseModel):
    """Arguments that the SDK makes a strict tool of."""

    day: int = pydantic.Field(ge=1, le=7)
    is_long: bool


def test_strict_tools_of_pydantic_classes_are_parsed(client: OpenAI) -> None:
    answer = client.chat.completions.parse(
        model="demo",
        messages=MESSAGES,
        tools=[pydantic_function_tool(Forecast, name="forecast")],
        tool_choice="required",
        parallel_tool_calls=False,
    )

    calls = answer.choices[0].message.tool_calls
    assert calls
    assert isinstance(calls[0].function.parsed_arguments, Forecast)


def test_the_tool_runner_of_the_sdk_runs_a_tool_and_goes_on(client: OpenAI) -> None:
    seen: list[Forecast] = []

    def execute(arguments: Forecast) -> str:
        seen.append(arguments)
        return "rain"

    tool: Any = pydantic_responses_function_tool(Forecast, name="forecast")
    runner = ResponsesToolRunner(functions=[RegisteredFunction.from_tool(tool, execute=execute)])
    # The runner takes no choice that must call. Beside a format, the answer is a call or that text: the text is made
    # unlikely in the first turn, where the model of the tests would not call by itself.
    tokenizer = Tokenizer.from_file(str(BUNDLED_TOKENIZER))
    unlikely = {str(index): -100 for token, index in tokenizer.get_vocab().items() if token.startswith("Z")}
    format_of_text = {"structured_outputs": {"choice": ["Zebra"]}, "logit_bias": unlikely}
    params: Any = {"model": "demo", "input": QUESTION, "parallel_tool_calls": False, "extra_body": format_of_text}

    turns = runner.iterate(client, params, max_steps=3, stream=True)
    first, second = next(turns), next(turns)
    turns.close()

    assert not first.final
    assert isinstance(seen[0], Forecast)
    assert second.response.output[0].type == "function_call"
