"""Tools, calls and results with real templates: token for token as in transformers, and without control tokens."""

import json
from collections.abc import Sequence
from typing import Any, cast

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from api.protocol.prompt.system_turn import Message
from api.protocol.prompt.tool_declaration import ToolDeclaration
from tests.protocol.test_tool_prompts import chat_with, declared
from tests.protocol.tool_templates import call, calling, result, user
from tests.real.conftest import Real
from tests.real.test_real_control_tokens import control_texts, counted
from tests.real.test_real_prompts import chat_ids, text_ids

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": 'The weather of a "city" <now>.',
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Its name, as in Zürich or 東京"},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
            },
            "required": ["city"],
        },
    },
}
CLOCK = {
    "type": "function",
    "function": {"name": "clock", "description": "The time.", "parameters": {"type": "object", "properties": {}}},
}
TOOLS = (WEATHER, CLOCK)
# What the templates of the families know, as their trial renderings find out.
MISTRAL = {"mistral_v3", "mistral_tekken"}
DECLARES = {"qwen3", "llama3_1", "gptoss", *MISTRAL}
SHOWS_CALLS = {"qwen3", "llama3_1", "deepseek_v3", "gptoss", *MISTRAL}
ONE_CALL = {"llama3_1", "gptoss"}
ARGUMENTS = [
    "{}",
    '{"city": "Oslo"}',
    '{"unit":"celsius","city":"Zürich \\"old\\" \\n town","nested":{"b":[1,2.5,null,true],"a":{}}}',
]


def transformers_ids(real: Real, messages: Sequence[Message], tools: Sequence[object] = ()) -> list[int]:
    """What transformers makes of a chat with tools. A content of None stays, which its tokenizers leave out."""
    render: Any = render_jinja_template  # Any: the library declares dicts of strings
    ((prompt,), _) = render(
        [list(messages)],
        tools=list(tools) or None,
        chat_template=real.tokenizer.chat_template,
        add_generation_prompt=True,
        enable_thinking=False,
        **real.tokenizer.special_tokens_map,
    )
    return text_ids(real, prompt, add_special_tokens=False)


def mapped(real: Real, chat: list[Message]) -> list[Message]:
    """The chat as transformers wants it: arguments are objects, where the template does not want texts."""
    if real.name == "deepseek_v3":
        return chat
    if real.name in MISTRAL:
        chat = with_short_ids(chat)
    turns: list[Message] = []
    for message in chat:
        calls = [
            {**one, "function": {**one["function"], "arguments": json.loads(one["function"]["arguments"])}}
            for one in message.get("tool_calls", ())  # type: ignore[attr-defined] # a list, where it is there
        ]
        content = message["content"] if message["content"] is not None else ""
        turns.append({**message, "content": content, **({"tool_calls": calls} if calls else {})})
    return turns


def with_short_ids(chat: list[Message]) -> list[Message]:
    """The chat with ids of nine characters, which Mistral's templates ask for, as they are given here."""
    ids = [one["id"] for message in chat for one in message.get("tool_calls", ())]  # type: ignore[attr-defined] # a list, where it is there
    short = {given: f"call{index:05}" for index, given in enumerate(ids)}
    turns: list[Message] = []
    for message in chat:
        calls = [{**one, "id": short[one["id"]]} for one in message.get("tool_calls", ())]  # type: ignore[attr-defined] # as above
        turn = {**message, **({"tool_calls": calls} if calls else {})}
        if message["role"] == "tool":
            turn["tool_call_id"] = short[message["tool_call_id"]]
        turns.append(turn)
    return turns


def shows(real: Real, names: set[str]) -> bool:
    """Whether the family is one of these; the others get tools in texts."""
    return real.name in names


def test_chats_are_rendered_here_as_tokenizers_of_transformers_do(real: Real) -> None:
    chat = [user("Hi"), {"role": "assistant", "content": "Yes?"}, user("So?")]

    assert transformers_ids(real, chat) == chat_ids(real, cast(list[dict[str, str]], chat))


def test_what_a_template_takes_is_found_out(real: Real) -> None:
    assert real.tools._template is not None
    form = real.tools._template.tool_form

    assert form.declares_tools == shows(real, DECLARES)
    assert form.shows_calls == shows(real, SHOWS_CALLS)
    assert form.has_argument_strings == (real.name == "deepseek_v3")
    assert form.has_parallel_calls == shows(real, SHOWS_CALLS - ONE_CALL)


@pytest.mark.parametrize("arguments", ARGUMENTS, ids=range(len(ARGUMENTS)))
def test_calls_and_results_have_the_ids_that_they_have_in_transformers(real: Real, arguments: str) -> None:
    if not shows(real, SHOWS_CALLS):
        pytest.skip("this template shows no calls")
    turns = [user("Oslo?"), calling(call("call_1", arguments)), result("call_1", 'rain, "heavy"\n')]
    chats = [turns, [*turns, {"role": "assistant", "content": "It rains."}, user("And now?")]]
    tools = TOOLS if shows(real, DECLARES) else ()

    for chat in chats:
        expected = transformers_ids(real, mapped(real, chat), tools)
        assert list(real.tools.encode_chat(chat, tools=ToolDeclaration(functions=tools))) == expected
        assert real.tools.count(chat, tools=ToolDeclaration(functions=tools)) == len(expected)


def test_parallel_calls_have_the_ids_that_they_have_in_transformers(real: Real) -> None:
    if not shows(real, SHOWS_CALLS):
        pytest.skip("this template shows no calls")
    first, second = call("call_1", ARGUMENTS[1]), call("call_2", "{}", "clock")
    rain, noon = result("call_1", "rain"), result("call_2", "12:00", "clock")
    chat = [user("Oslo?"), calling(first, second), rain, noon]
    apart = [user("Oslo?"), calling(first), rain, calling(second), noon]

    ids = list(real.tools.encode_chat(chat))

    assert ids == transformers_ids(real, mapped(real, apart if shows(real, ONE_CALL) else chat))


def test_declared_tools_have_the_ids_that_they_have_in_transformers(real: Real) -> None:
    if not shows(real, DECLARES):
        pytest.skip("this template shows no tools")
    chat = [{"role": "system", "content": "Be brief."}, user("Oslo?")]

    for tools in (TOOLS, TOOLS[1:]):
        ids = list(real.tools.encode_chat(chat, tools=ToolDeclaration(functions=tools)))
        assert ids == transformers_ids(real, chat, tools)


def test_every_family_is_shown_everything(real: Real) -> None:
    chat = [user("Oslo?"), calling(call("call_1", ARGUMENTS[1]), text="I look."), result("call_1", "rain"), user("So?")]

    prompt = real.tools.render_chat(chat, tools=ToolDeclaration(functions=TOOLS))

    assert all(word in prompt for word in ("weather", "clock", "fahrenheit", "Oslo?", "I look.", "rain", "So?"))
    assert ("<tools>" in prompt) == (not shows(real, DECLARES) or real.name == "qwen3")


def test_no_string_of_tools_calls_and_results_makes_a_control_token(real: Real) -> None:
    expected = counted(real, real.tools.encode_chat(chat_with("x"), tools=declared("x")))

    for text in control_texts(real):
        cut = len(text) // 2
        for attack in (f"Hi{text}\n{text} {text}system", text, text[:cut], text[cut:]):
            ids = real.tools.encode_chat(chat_with(attack), tools=declared(attack))
            assert counted(real, ids) == expected, attack
