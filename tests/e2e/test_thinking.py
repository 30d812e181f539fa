"""Thinking with the whole platform and the unmodified SDK: a toy with a template that opens and closes thoughts."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import BadRequestError, OpenAI

from tests.e2e.platform import running_platform
from tests.plain_http import sdk_client

BUNDLED = Path(__file__).parents[2] / "workers" / "model" / "demo"
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}{{ m.content }}<|im_end|>\n"
    "{% endfor %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is true %}<think>\n"
    "{% elif enable_thinking is defined %}<think>\n\n</think>\n\n{% endif %}"
)
MODEL = "thinker"
MESSAGES: Any = [{"role": "user", "content": "Tell me a story."}]
SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["a"],
    "additionalProperties": False,
}
BUDGET = 6


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAI]:
    """The SDK at a platform with the toy."""
    folder = tmp_path_factory.mktemp("thinker")
    model = folder / "model"
    shutil.copytree(BUNDLED, model)
    (model / "chat_template.jinja").write_text(TEMPLATE)
    served = ("--model", f"{MODEL}={model}")
    with running_platform(folder / "home", models=served) as platform, sdk_client(platform.base_url) as opened:
        yield opened


def thought_of(message: Any) -> str | None:  # Any: the SDK declares no such field
    return getattr(message, "reasoning_content", None)


def ask(client: OpenAI, **fields: Any) -> Any:  # Any: fields and answers of the SDK
    return client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=90, temperature=0, **fields)


def test_a_chat_thinks_within_its_budget_and_then_answers(client: OpenAI) -> None:
    answer = ask(client, reasoning_effort="low", extra_body={"thinking_token_budget": BUDGET})
    hidden = ask(
        client,
        reasoning_effort="low",
        extra_body={"thinking_token_budget": BUDGET, "include_reasoning": False},
    )
    stream = ask(client, stream=True, extra_body={"thinking_token_budget": BUDGET})
    deltas = [chunk.choices[0].delta for chunk in stream if chunk.choices]

    message = answer.choices[0].message
    assert thought_of(message)
    assert message.content
    assert "think>" not in message.content
    details = answer.usage.completion_tokens_details
    assert BUDGET < details.reasoning_tokens < answer.usage.completion_tokens
    assert thought_of(hidden.choices[0].message) is None
    assert hidden.choices[0].message.content == message.content
    assert hidden.usage.completion_tokens_details.reasoning_tokens == details.reasoning_tokens
    assert "".join(thought_of(delta) or "" for delta in deltas) == thought_of(message)
    assert "".join(delta.content or "" for delta in deltas) == message.content


def test_a_chat_does_not_think_unless_it_is_asked(client: OpenAI) -> None:
    plain, none = ask(client), ask(client, reasoning_effort="none")
    off = ask(client, extra_body={"chat_template_kwargs": {"enable_thinking": False}})

    for answer in (plain, none, off):
        assert thought_of(answer.choices[0].message) is None
        assert answer.choices[0].message.content == plain.choices[0].message.content
        assert answer.usage.completion_tokens_details.reasoning_tokens == 0


def test_a_format_holds_behind_the_thought(client: OpenAI) -> None:
    answer = ask(
        client,
        extra_body={"thinking_token_budget": BUDGET},
        response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA, "strict": True}},
    )

    assert thought_of(answer.choices[0].message)
    assert set(json.loads(answer.choices[0].message.content)) == {"a"}


def test_a_call_follows_its_thought_and_goes_back_with_it(client: OpenAI) -> None:
    tools: Any = [{"type": "function", "function": {"name": "pick", "parameters": SCHEMA, "strict": True}}]

    answer = ask(client, tools=tools, tool_choice="required", extra_body={"thinking_token_budget": BUDGET})

    message = answer.choices[0].message
    (call,) = message.tool_calls[:1]
    assert answer.choices[0].finish_reason in ("tool_calls", "length")
    assert thought_of(message)
    assert set(json.loads(call.function.arguments)) == {"a"}
    results: Any = [{"role": "tool", "tool_call_id": one.id, "content": "ok"} for one in message.tool_calls]
    said: Any = message.model_dump(exclude_none=True)
    again = client.chat.completions.create(
        model=MODEL, messages=[*MESSAGES, said, *results], tools=tools, tool_choice="none", max_tokens=5
    )
    assert again.choices[0].message.tool_calls is None


def test_a_signed_thought_goes_back_without_being_stored(client: OpenAI) -> None:
    first = client.responses.create(
        model=MODEL,
        input="Tell me a story.",
        store=False,
        max_output_tokens=40,
        include=["reasoning.encrypted_content"],
        extra_body={"thinking_token_budget": BUDGET},
    )
    thought, message = first.output
    assert (thought.type, message.type) == ("reasoning", "message")
    assert thought.encrypted_content
    bare: Any = {"type": "reasoning", "id": thought.id, "summary": [], "encrypted_content": thought.encrypted_content}
    history: Any = [*MESSAGES, bare, {"role": "assistant", "content": first.output_text}, *MESSAGES]
    open_history: Any = [*MESSAGES, thought.model_dump(exclude={"encrypted_content"}), *history[2:]]

    counted = [
        client.responses.input_tokens.count(model=MODEL, input=some).input_tokens for some in (history, open_history)
    ]

    assert counted[0] == counted[1]
    bare["encrypted_content"] = bare["encrypted_content"][:-8] + "AAAAAAAA"
    with pytest.raises(BadRequestError) as refused:
        client.responses.create(model=MODEL, input=history, max_output_tokens=2)
    assert refused.value.code == "invalid_encrypted_content"


def test_a_thought_that_the_limit_cuts_is_all_there_is(client: OpenAI) -> None:
    answer = client.responses.create(
        model=MODEL, input="Tell me a story.", max_output_tokens=4, temperature=0, reasoning={"effort": "high"}
    )

    assert answer.status == "incomplete"
    assert [(item.type, item.status) for item in answer.output] == [("reasoning", "incomplete")]


def test_the_model_says_that_it_thinks(client: OpenAI) -> None:
    shown: Any = client.models.retrieve(MODEL)

    assert shown.capabilities["reasoning"]
    assert shown.tool_format == "generic"
