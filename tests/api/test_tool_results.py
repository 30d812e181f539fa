"""Histories with tool calls over HTTP: taken, stored, listed, counted, and refused with their codes."""

from typing import Any, cast

import httpx2
import openai
import pytest

from api.protocol.prompt.tokenizing import PromptTools
from tests.api.fake_worker import TEXT, FakeWorker
from tests.protocol.examples import manifest

CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Oslo"}'}}
MESSAGES = [
    {"role": "user", "content": "Oslo?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "rain"}]},
]
ITEMS = [
    {"role": "user", "content": "Oslo?"},
    {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": '{"city":"Oslo"}'},
    {"type": "function_call_output", "call_id": "call_1", "output": "rain"},
]
# The model's template knows no tools.
TURNS = (
    "<|im_start|>user\nOslo?<|im_end|>\n<|im_start|>assistant\n<tool_call>\n"
    '{"name": "weather", "arguments": {"city":"Oslo"}}\n</tool_call><|im_end|>\n'
    "<|im_start|>user\n<tool_response>\nrain\n</tool_response><|im_end|>\n"
)


def prompt_of(worker: FakeWorker) -> str:
    """The prompt of the newest job."""
    return PromptTools(manifest()).decode(worker.specs[-1].prompts[0])


def test_a_chat_with_results_is_answered_and_its_messages_are_listed(client: openai.OpenAI, worker: FakeWorker) -> None:
    messages = cast(Any, MESSAGES)  # Any: the SDK declares a class for each role

    chat = client.chat.completions.create(model="demo", messages=messages, store=True)
    listed = client.chat.completions.messages.list(chat.id).data

    assert chat.choices[0].message.content == TEXT
    assert prompt_of(worker) == f"{TURNS}<|im_start|>assistant\n"
    found = [message.model_dump() for message in listed]
    assert found[1]["tool_calls"] == [CALL]
    assert found[2]["tool_call_id"] == "call_1"


def test_a_response_with_results_is_answered_counted_and_continued(client: openai.OpenAI, worker: FakeWorker) -> None:
    items = cast(Any, ITEMS)  # Any: the SDK declares a class for each type

    counted = client.responses.input_tokens.count(model="demo", input=items)
    first = client.responses.create(model="demo", input=items)
    assert first.usage is not None
    assert counted.input_tokens == first.usage.input_tokens
    second = client.responses.create(model="demo", input="And Lima?", previous_response_id=first.id)

    said = f"<|im_start|>assistant\n{TEXT}<|im_end|>\n<|im_start|>user\nAnd Lima?<|im_end|>\n"
    assert prompt_of(worker) == f"{TURNS}{said}<|im_start|>assistant\n"
    listed = client.responses.input_items.list(second.id, order="asc").data
    assert [item.type for item in listed] == ["message", "function_call", "function_call_output", "message", "message"]
    assert listed[1].id.startswith("fc_")


REFUSED = [
    ("/v1/chat/completions", {"messages": MESSAGES[:2]}, "missing_tool_output", "messages.[1].role"),
    ("/v1/chat/completions", {"messages": MESSAGES[::2]}, "unknown_call_id", "messages.[1].role"),
    ("/v1/responses", {"input": ITEMS[:2]}, "missing_tool_output", "input"),
    ("/v1/responses", {"input": ITEMS[::2]}, "unknown_call_id", "input"),
    ("/v1/responses/input_tokens", {"input": ITEMS[:2]}, "missing_tool_output", "input"),
    ("/v1/responses", {"input": [{"type": "program", "id": "x"}]}, "unsupported_parameter", "input[0].type"),
]


@pytest.mark.parametrize(("path", "fields", "code", "param"), REFUSED, ids=[f"{row[0]}-{row[2]}" for row in REFUSED])
def test_a_broken_history_is_refused_before_a_job_exists(
    http: httpx2.Client, worker: FakeWorker, path: str, fields: dict[str, object], code: str, param: str
) -> None:
    answer = http.post(path, json={"model": "demo", **fields})

    assert answer.status_code == 400
    assert (answer.json()["error"]["code"], answer.json()["error"]["param"]) == (code, param)
    assert worker.num_claimed == 0
