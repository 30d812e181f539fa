"""Real chat templates and vocabularies: which family each is, which markers are tokens, and where an answer begins."""

import json
from functools import cache
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from api.protocol.families.family import OUTSIDE, THINKING
from api.protocol.families.grammar.output_grammar import ChoiceMode, ThoughtMode, ToolChoice, output_grammar
from api.protocol.prompt.tokenizing import PromptTools
from storage.contract import MARKER_SIGN
from storage.model_manifest import ModelManifest
from tests.protocol.families.recorded import PARTS, RECORDED
from tests.real.families import FAMILIES
from tests.real.packages import PackageUnavailable
from tests.services import skip_or_fail
from workers.constraint.grammars import Grammars

_USER = {"role": "user", "content": "Say <think> and <tool_call>."}


@cache
def _laid(name: str, folder: Path) -> tuple[str, dict[str, object]]:
    try:
        FAMILIES[name].lay_tokenizer(folder)
    except PackageUnavailable as error:
        skip_or_fail(str(error))
        raise
    config = json.loads((folder / "tokenizer_config.json").read_text())
    return (folder / "tokenizer.json").read_text(), config


def tools_of(name: str, folder: Path) -> PromptTools:
    """The API's part of a model, from its tokenizer's files alone."""
    tokenizer_json, config = _laid(name, folder)
    named = {key: config.get(key) for key in ("bos_token", "eos_token")}
    texts = {key: value["content"] if isinstance(value, dict) else value for key, value in named.items()}
    return PromptTools(
        ModelManifest(
            model=name,
            context_length=2048,
            tokenizer_json=tokenizer_json,
            chat_template=str(config["chat_template"]),
            special_tokens={key: str(text) for key, text in texts.items() if text},
            capabilities={},
        )
    )


@pytest.mark.parametrize(
    ("name", "family", "tokens", "can_think", "always"),
    [
        ("qwen3", "hermes", {"<think>", "</think>", "<tool_call>", "</tool_call>"}, True, False),
        ("llama2", "generic", set(), False, False),
        # The package names the token of `<|python_tag|>` otherwise.
        ("llama3_1", "llama3", set(), False, False),
        ("gemma3", "generic", set(), False, False),
        (
            "deepseek_v3",
            "deepseek_v3",
            {
                "<｜tool▁calls▁begin｜>",
                "<｜tool▁call▁begin｜>",
                "<｜tool▁sep｜>",
                "<｜tool▁call▁end｜>",
                "<｜tool▁calls▁end｜>",
            },
            False,
            False,
        ),
        (
            "gptoss",
            "gpt_oss",
            {"<|channel|>", "<|message|>", "<|start|>", "<|end|>", "<|constrain|>", "<|call|>", "<|return|>"},
            True,
            True,
        ),
    ],
)
def test_a_real_model_belongs_to_its_family(
    name: str, family: str, tokens: set[str], can_think: bool, always: bool, tmp_path: Path
) -> None:
    tools = tools_of(name, tmp_path)

    assert tools.family.family.name == family
    assert set(tools.family.token_ids) == tokens
    assert (tools.thinking.can_think, tools.thinking.always_thinks) == (can_think, always)


@pytest.mark.parametrize("arguments", [{"enable_thinking": True}, {"enable_thinking": False}, {}])
def test_qwen3_begins_outside_of_a_thought_whatever_the_switch_says(
    arguments: dict[str, object], tmp_path: Path
) -> None:
    tools = tools_of("qwen3", tmp_path).with_arguments(arguments)
    end = tools.end_of(tools.encode_chat([_USER]))

    assert tools.thinking.form.switch == "enable_thinking"
    assert ("</think>" in end) == (arguments.get("enable_thinking") is False)
    assert tools.family.family.state_at(end) == OUTSIDE


def test_a_prompt_that_ends_with_an_opened_thought_begins_inside(tmp_path: Path) -> None:
    tools = tools_of("qwen3", tmp_path)
    prompt = [
        *tools.encode_chat([_USER]),
        tools.family.token_ids["<think>"],
        *tools.encode("\n", add_special_tokens=False),
    ]

    assert tools.family.family.state_at(tools.end_of(prompt)) == THINKING


def test_no_think_in_a_message_is_the_models_business(tmp_path: Path) -> None:
    tools = tools_of("qwen3", tmp_path).with_arguments({"enable_thinking": True})
    end = tools.end_of(tools.encode_chat([{"role": "user", "content": "Hi /no_think"}]))

    assert tools.family.family.state_at(end) == OUTSIDE


def test_gpt_oss_knows_levels(tmp_path: Path) -> None:
    tools = tools_of("gptoss", tmp_path)
    low = tools.with_arguments({"reasoning_effort": "low"}).render_chat([_USER])

    assert tools.thinking.form.has_efforts
    assert "Reasoning: low" in low
    assert tools.family.family.state_at(low) == OUTSIDE


@pytest.mark.parametrize(
    ("name", "family"), [("qwen3", "hermes"), ("deepseek_v3", "deepseek_v3"), ("gptoss", "gpt_oss")]
)
def test_a_real_vocabulary_writes_calls_by_its_marker_tokens_and_no_others(
    name: str, family: str, tmp_path: Path
) -> None:
    model = tools_of(name, tmp_path)
    tokenizer = Tokenizer.from_str((tmp_path / "tokenizer.json").read_text())
    answer = next(output for one, _, output, _ in RECORDED if one == family)
    end = FAMILIES[name].eos_token_ids[0]
    grammars = Grammars(tokenizer.to_str(), vocab_size=FAMILIES[name].num_rows, eos_token_ids=[end])
    grammar = output_grammar(model.family, tools=PARTS, thoughts=ThoughtMode.ALLOWED)
    banned = output_grammar(model.family, tools=PARTS, choice=ToolChoice(mode=ChoiceMode.NONE))
    assert grammar is not None
    assert banned is not None
    ids = tokenizer.encode(answer, add_special_tokens=False).ids

    matcher = grammars.matcher(grammar)
    taken = [matcher.consume_token(one) for one in ids]

    assert all(taken)
    assert matcher.is_accepting()
    trigger = model.family.family.calls
    assert trigger is not None
    opening = tokenizer.encode(trigger.trigger.replace(MARKER_SIGN, ""), add_special_tokens=False).ids
    assert not grammars.matcher(banned).consume_tokens(opening)


def test_gpt_oss_gets_a_thought_as_its_analysis(tmp_path: Path) -> None:
    tools = tools_of("gptoss", tmp_path)
    call = {"id": "c", "type": "function", "function": {"name": "now", "arguments": "{}"}}
    said = {"role": "assistant", "content": "", "reasoning_content": "Hm.", "tool_calls": [call]}
    result = {"role": "tool", "tool_call_id": "c", "name": "now", "content": "noon"}

    prompt = tools.render_chat([{"role": "user", "content": "When?"}, said, result])

    assert "<|channel|>analysis<|message|>Hm.<|end|>" in prompt
