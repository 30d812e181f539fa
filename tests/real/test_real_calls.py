"""Tools with real tokenizers: tiny models of random weights, with the whole platform, call where they must."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from jsonschema import validate
from openai import OpenAI

from tests.e2e.platform import running_platform
from tests.plain_http import sdk_client
from tests.real.conftest import laid

# One for each way to write calls: markers of the vocabulary, JSON without any, sections, channels, none.
FORMS = {
    "qwen3": "hermes",
    "llama3_1": "llama3",
    "deepseek_v3": "deepseek_v3",
    "gptoss": "gpt_oss",
    "gemma3": "generic",
}
ARGUMENTS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 6},
        "unit": {"enum": ["celsius", "fahrenheit"]},
        "days": {"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": 7}, "maxItems": 3},
    },
    "required": ["city", "unit", "days"],
    "additionalProperties": False,
}
TOOLS: Any = [
    {"type": "function", "function": {"name": "weather", "description": "Of a city.", "parameters": ARGUMENTS}},
    {"type": "function", "function": {"name": "clock", "description": "The time."}},
]
MESSAGES: Any = [{"role": "user", "content": "What is the weather in Oslo?"}]


@dataclass(frozen=True)
class Served:
    """A platform that serves one family, under its folder's name."""

    family: str
    client: OpenAI


@pytest.fixture(scope="module", params=FORMS)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Each family in turn; in a plain run the first one, since each starts a platform."""
    family: str = request.param
    if family != next(iter(FORMS)) and not request.config.getoption("--all-prompts", default=False):
        pytest.skip("run with --all-prompts")
    folder: Path = laid(family, tmp_path_factory.mktemp("served") / family)
    home = tmp_path_factory.mktemp("home") / "home"
    with running_platform(home, "--model", str(folder)) as platform, sdk_client(platform.base_url) as client:
        yield Served(family, client)


def model_of(served: Served) -> str:
    (model,) = served.client.models.list().data
    return model.id


def check(name: str, arguments: str) -> None:
    assert name in ("weather", "clock")
    validate(json.loads(arguments), ARGUMENTS if name == "weather" else {"const": {}})


@pytest.mark.parametrize("seed", range(4))
def test_a_model_of_random_weights_calls_where_it_must(served: Served, seed: int) -> None:
    asked: Any = {"model": model_of(served), "messages": MESSAGES, "tools": TOOLS, "tool_choice": "required"}
    asked |= {"parallel_tool_calls": False, "temperature": 1.5, "seed": seed, "max_tokens": 400}
    if served.family == "gptoss":
        # It always thinks, and random weights do so without an end.
        asked["extra_body"] = {"thinking_token_budget": 16}

    whole = served.client.chat.completions.create(**asked).choices[0]
    with served.client.chat.completions.stream(**asked) as stream:
        streamed = stream.get_final_completion().choices[0]

    assert whole.finish_reason == "tool_calls", whole
    assert whole.message.content is None
    (call,) = whole.message.tool_calls or ()
    assert call.type == "function"
    check(call.function.name, call.function.arguments)
    (again,) = streamed.message.tool_calls or ()
    assert (again.function.name, again.function.arguments) == (call.function.name, call.function.arguments)
    result: Any = {"role": "tool", "tool_call_id": call.id, "content": "rain"}
    history: Any = [*MESSAGES, whole.message, result]
    next_turn = served.client.chat.completions.create(
        model=asked["model"], messages=history, tools=TOOLS, tool_choice="none", max_tokens=20
    )
    assert next_turn.choices[0].message.tool_calls is None


def test_the_form_of_its_calls_is_listed(served: Served) -> None:
    (model,) = served.client.models.list().data

    assert model.model_extra is not None
    assert model.model_extra["tool_format"] == FORMS[served.family]
    assert model.model_extra["capabilities"]["tools"] is True
