"""Which family a model belongs to, and what its own `response_template` says; transformers' parser is the oracle."""

import json
from collections.abc import Iterable, Mapping

import pytest
from transformers.utils.chat_parsing import parse_response

from api.protocol.answer.segments import CallArguments, CallOpened, Reasoning, Segment, Text
from api.protocol.families.detection import detected, family_for
from api.protocol.families.family import THINKING, ArgumentForm
from api.protocol.families.family_table import FAMILIES
from api.protocol.families.response_template import family_of_template
from tests.protocol.families.recorded import NOW, RECORDED, WEATHER, bound_to_tokens, parsed

_THINK = {"open": "<think>", "close": "</think>", "content": "text"}
_CALLED = {"type": "function", "function": {"name": "{name}", "arguments": "{content}"}}
_TAGGED = {"repeats": True, "content": "xml-inline", "transform": _CALLED}
_JSON = {"repeats": True, "content": "json"}


def _template(
    calls: Mapping[str, object], thought: Mapping[str, object] = _THINK, **content: object
) -> dict[str, object]:
    fields = {"reasoning_content": thought, "tool_calls": calls, "content": {"content": "text", **content}}
    return {"version": 1, "defaults": {"role": "assistant"}, "start_anchor": "<|assistant|>", "fields": fields}


# Templates in transformers' form, of its own table and of its documentation.
TEMPLATES: Mapping[str, dict[str, object]] = {
    "hermes": _template(
        {
            **_JSON,
            "open_pattern": r"\s*<tool_call>",
            "close": "</tool_call>",
            "transform": {"type": "function", "function": "{content}"},
        },
        close_pattern=r"\s*(?:<\|im_end\|>|<\|endoftext\|>)",
    ),
    "qwen3_coder": _template(
        {
            **_TAGGED,
            "open_pattern": r"\s*<tool_call>\s*<function=(?P<name>[^>\n]+)>",
            "close_pattern": r"</function>\s*</tool_call>",
            "content_args": {"tag_pattern": r"<parameter=(?P<key>[^>\n]+)>\s*(?P<value>.*?)\s*</parameter>"},
        }
    ),
    "glm4_7": _template(
        {
            **_TAGGED,
            "open_pattern": r"\s*<tool_call>(?P<name>[^<\n]+)",
            "close": "</tool_call>",
            "content_args": {
                "tag_pattern": r"<arg_key>(?P<key>[^<]+)</arg_key>\s*<arg_value>(?P<value>.*?)</arg_value>"
            },
        }
    ),
    "deepseek_v3_1": _template(
        {
            **_JSON,
            "open_pattern": r"<｜tool▁call▁begin｜>(?P<name>[^<]+)<｜tool▁sep｜>",
            "close": "<｜tool▁call▁end｜>",
            "transform": _CALLED,
        },
    ),
    "gemma4": _template(
        {
            **_JSON,
            "open_pattern": r"\s*<\|tool_call>call:(?P<name>\w+)",
            "close": "<tool_call|>",
            "content_args": {"unquoted_keys": True, "string_delims": [['<|"|>', '<|"|>']]},
            "transform": _CALLED,
        },
        {"open": "<|channel>thought\n", "close": "<channel|>", "content": "text"},
    ),
    "mistral_named": _template(
        {
            **_JSON,
            "open_pattern": r"\[TOOL_CALLS\](?P<name>\w+)\[ARGS\]",
            "close_pattern": r"(?=\[TOOL_CALLS\])|$",
            "transform": _CALLED,
        },
        {"open": "[THINK]", "close": "[/THINK]", "content": "text"},
    ),
}
_SCHEMAS = [
    {"type": "function", "function": {"name": name, "parameters": parameters}}
    for name, parameters in (("weather", WEATHER), ("now", NOW))
]
ORACLE = [
    pytest.param(name, state, output, id=f"{name}-{index}")
    for index, (name, state, output, segments) in enumerate(RECORDED)
    if name in TEMPLATES and "<custom=" not in output and "tool▁calls▁begin" not in output
]


def _message(segments: Iterable[Segment]) -> dict[str, object]:
    """A message in transformers' form, texts trimmed as there."""
    some = list(segments)
    text = "".join(one.text for one in some if isinstance(one, Text)).strip()
    thought = "".join(one.text for one in some if isinstance(one, Reasoning)).strip()
    arguments = [json.loads(one.text) for one in some if isinstance(one, CallArguments)]
    names = [one.name for one in some if isinstance(one, CallOpened)]
    calls = [
        {"type": "function", "function": {"name": name, "arguments": given}}
        for name, given in zip(names, arguments, strict=True)
    ]
    message: dict[str, object] = {"role": "assistant"}
    return message | {
        key: value for key, value in (("reasoning_content", thought), ("content", text), ("tool_calls", calls)) if value
    }


@pytest.mark.parametrize(("name", "state", "output"), ORACLE)
def test_whole_answers_are_read_as_transformers_reads_them(name: str, state: str, output: str) -> None:
    bound = bound_to_tokens(FAMILIES[name], has_tokens=False)
    thought = FAMILIES[name].thinking
    prefix = thought.opening if state == THINKING and thought is not None else ""

    expected = parse_response(output, TEMPLATES[name], prefix=prefix, tools=_SCHEMAS)

    assert _message(parsed(bound, [output], state)) == expected


@pytest.mark.parametrize(("name", "state", "output"), ORACLE)
def test_a_models_own_template_reads_what_its_family_does(name: str, state: str, output: str) -> None:
    family = family_of_template(json.dumps(TEMPLATES[name]))
    if name == "mistral_named":
        assert family is None, "its end is a pattern that looks ahead"
        return
    assert family is not None

    own = parsed(bound_to_tokens(family, has_tokens=False), [output], state)

    assert _message(own) == _message(parsed(bound_to_tokens(FAMILIES[name], has_tokens=False), [output], state))


def test_a_models_own_template_comes_first_and_the_chat_template_has_its_white_space() -> None:
    template = json.dumps(TEMPLATES["hermes"])

    family, own = detected("{% if tools %}<tool_call>{% endif %}", template)

    assert own == template
    assert family.name == "response_template"
    assert family.calls == FAMILIES["hermes"].calls


@pytest.mark.parametrize(
    "template",
    [
        "no JSON",
        "[]",
        "{}",
        '{"version": 2, "fields": {"content": {}}}',
        '{"fields": {"tool_calls": {"open_pattern": "(a+)+(?P<name>.+)b", "close": "c", "content": "json"}}}',
        '{"fields": {"tool_calls": {"open": "<a>", "close": "<b>", "content": "kv-lines"}}}',
        '{"fields": {"thinking": {"open": 5, "close": "x"}}}',
        '{"fields": {"unknown": {"open": "a", "close": "x"}}}',
        "[" * 20_000,
    ],
)
def test_a_template_that_cannot_be_read_leaves_the_family_to_the_chat_template(template: str) -> None:
    assert family_of_template(template) is None
    assert detected("<tool_call></think>", template) == (FAMILIES["hermes"], None)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('<tool_call>\n{"name": </think>', "hermes"),
        ("<tool_call>\n<function= </think>", "qwen3_coder"),
        ('<|start_header_id|> <|eot_id|> "parameters"', "llama3"),
        ("<|python_tag|>", "llama3"),
        ("[TOOL_CALLS] [", "mistral"),
        ("[TOOL_CALLS]name[ARGS]", "mistral_named"),
        ("<｜tool▁calls▁begin｜> ```json", "deepseek_v3"),
        ("<｜tool▁calls▁begin｜>", "deepseek_v3_1"),
        ("<tool_call> <arg_key>k</arg_key>\n<arg_value>", "glm4_5"),
        ("<tool_call> <arg_key>k</arg_key><arg_value>", "glm4_7"),
        ("<|tool_calls_section_begin|>", "kimi_k2"),
        ("<minimax:tool_call>", "minimax_m2"),
        ("<|channel|>commentary<|message|>", "gpt_oss"),
        ("<|tool_call> <tool_call|>", "gemma4"),
        ("<|tool_call_start|>", "lfm2"),
        ("<|im_start|>", "generic"),
    ],
)
def test_a_family_is_found_by_what_the_chat_template_writes(text: str, name: str) -> None:
    assert detected(text)[0].name == name


def test_a_template_that_writes_no_thoughts_has_none() -> None:
    assert detected("<tool_call>")[0].thinking is None
    assert detected("<tool_call> </think>")[0].thinking == FAMILIES["hermes"].thinking


def test_markers_are_tokens_where_the_vocabulary_has_them() -> None:
    ids = {"<tool_call>": 7, "</think>": 8, "unrelated": 9}

    bound = family_for("<tool_call></think>", None, ids.get)

    assert bound.token_ids == {"<tool_call>": 7, "</think>": 8}
    assert bound.family.calls is not None
    assert bound.family.calls.trigger == "\ufdd0<tool_call>"
    assert bound.family.calls.closing == "</tool_call>"
    assert bound.family.calls.arguments is ArgumentForm.JSON


@pytest.mark.parametrize(
    ("prompt", "state"),
    [
        ("<|im_start|>assistant\n", ""),
        ("<|im_start|>assistant\n<think>\n", THINKING),
        ("<|im_start|>assistant\n<think>", THINKING),
        ("<|im_start|>assistant\n<think>\n\n</think>\n\n", ""),
        ("user says <think><|im_end|>\n<|im_start|>assistant\n", ""),
    ],
)
def test_the_end_of_the_prompt_tells_whether_a_thought_is_open(prompt: str, state: str) -> None:
    assert FAMILIES["hermes"].state_at(prompt) == state
    assert bound_to_tokens(FAMILIES["hermes"], has_tokens=True).family.state_at(prompt) == state
    assert FAMILIES["llama3"].state_at(prompt) == ""
