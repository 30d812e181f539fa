"""Whether and how long a job thinks, from a request's fields and what the model can do."""

import pytest

from api.protocol.families.family_table import GPT_OSS, HERMES, LLAMA3
from api.protocol.prompt.chat_template import ChatTemplate
from api.protocol.prompt.thinking_form import ModelThinking, ThinkingForm, model_thinking_of, thinking_form_of
from api.protocol.thinking.thinking_choice import ThinkingAsked, thinking_choice
from storage.errors import InvalidRequest, ReasoningNotSupported

SWITCHED = ModelThinking(form=ThinkingForm(switch="enable_thinking"), can_think=True)
ALWAYS = ModelThinking(can_think=True, always_thinks=True)
LEVELS = ModelThinking(form=ThinkingForm(has_efforts=True), can_think=True, always_thinks=True)
NEVER = ModelThinking()


def test_thinking_is_off_unless_it_is_asked_for() -> None:
    choice = thinking_choice(ThinkingAsked(), SWITCHED)

    assert (choice.is_on, choice.max_tokens, choice.arguments) == (False, None, {"enable_thinking": False})


@pytest.mark.parametrize(
    ("effort", "budget"),
    [("minimal", 256), ("low", 1024), ("medium", 4096), ("high", 16384), ("xhigh", 32768), ("max", None)],
)
def test_an_effort_sets_the_switch_and_a_budget(effort: str, budget: int | None) -> None:
    choice = thinking_choice(ThinkingAsked(effort=effort), SWITCHED)

    assert (choice.is_on, choice.max_tokens, choice.arguments) == (True, budget, {"enable_thinking": True})


@pytest.mark.parametrize(
    ("asked", "is_on", "max_tokens"),
    [
        (ThinkingAsked(effort="none"), False, None),
        (ThinkingAsked(budget=0), False, None),
        (ThinkingAsked(budget=7), True, 7),
        (ThinkingAsked(effort="high", budget=7), True, 7),
        (ThinkingAsked(effort="high", budget=0), False, None),
        (ThinkingAsked(kwargs={"enable_thinking": True}), True, None),
        (ThinkingAsked(kwargs={"enable_thinking": False}), False, None),
        (ThinkingAsked(effort="low", kwargs={"enable_thinking": False}), False, None),
        (ThinkingAsked(effort="none", kwargs={"enable_thinking": True}), True, None),
        (ThinkingAsked(budget=9, kwargs={"enable_thinking": True}), True, 9),
    ],
)
def test_what_is_explicit_decides(asked: ThinkingAsked, is_on: bool, max_tokens: int | None) -> None:
    choice = thinking_choice(asked, SWITCHED)

    assert (choice.is_on, choice.max_tokens) == (is_on, max_tokens)


@pytest.mark.parametrize(
    "asked",
    [
        ThinkingAsked(budget=0, kwargs={"enable_thinking": True}),
        ThinkingAsked(budget=5, kwargs={"enable_thinking": False}),
        ThinkingAsked(budget=5, effort="none"),
    ],
)
def test_fields_that_contradict_each_other_are_refused(asked: ThinkingAsked) -> None:
    with pytest.raises(InvalidRequest) as refused:
        thinking_choice(asked, SWITCHED)

    assert refused.value.param == "thinking_token_budget"


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        (ThinkingAsked(effort="low"), "reasoning_effort"),
        (ThinkingAsked(effort="low", effort_param="reasoning.effort"), "reasoning.effort"),
        (ThinkingAsked(budget=5), "thinking_token_budget"),
    ],
)
def test_a_model_that_cannot_think_refuses_to(asked: ThinkingAsked, param: str) -> None:
    with pytest.raises(ReasoningNotSupported) as refused:
        thinking_choice(asked, NEVER)

    assert (refused.value.code, refused.value.param) == ("reasoning_not_supported", param)
    assert not thinking_choice(ThinkingAsked(effort="none"), NEVER).is_on
    assert not thinking_choice(ThinkingAsked(budget=0), NEVER).is_on


@pytest.mark.parametrize("asked", [ThinkingAsked(effort="none"), ThinkingAsked(budget=0)])
def test_a_model_that_cannot_do_without_refuses_none(asked: ThinkingAsked) -> None:
    with pytest.raises(ReasoningNotSupported):
        thinking_choice(asked, ALWAYS)

    assert thinking_choice(ThinkingAsked(), ALWAYS).is_on
    assert thinking_choice(ThinkingAsked(effort="low"), ALWAYS).max_tokens == 1024


@pytest.mark.parametrize("name", ["enable_thinking", "thinking", "reasoning_effort"])
def test_an_argument_that_the_template_does_not_read_is_refused_by_name(name: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        thinking_choice(ThinkingAsked(kwargs={name: "low" if name == "reasoning_effort" else False}), ALWAYS)

    assert refused.value.param == f"chat_template_kwargs.{name}"


@pytest.mark.parametrize(
    ("effort", "level"), [("minimal", "low"), ("low", "low"), ("medium", "medium"), ("xhigh", "high"), ("max", "high")]
)
def test_levels_go_to_templates_that_know_them(effort: str, level: str) -> None:
    choice = thinking_choice(ThinkingAsked(effort=effort), LEVELS)

    assert choice.arguments["reasoning_effort"] == level
    assert "reasoning_effort" not in thinking_choice(ThinkingAsked(), LEVELS).arguments


QWEN = (
    "{% for m in messages %}{{ m.content }}{% endfor %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}"
)
DEEPSEEK = "{{ messages[0].content }}{% if thinking is defined and thinking %}<think>{% else %}</think>{% endif %}"
DISTILLED = "{{ messages[0].content }}<|assistant|><think>\n"
EFFORTS = "Reasoning: {{ reasoning_effort or 'medium' }}{{ messages[0].content }}<|start|>assistant"
MENTIONED = "{# enable_thinking, reasoning_effort #}{{ messages[0].content }}"


@pytest.mark.parametrize(
    ("source", "form"),
    [
        (QWEN, ThinkingForm(switch="enable_thinking")),
        (DEEPSEEK, ThinkingForm(switch="thinking")),
        (DISTILLED, ThinkingForm()),
        (EFFORTS, ThinkingForm(has_efforts=True)),
        (MENTIONED, ThinkingForm()),
        ("{{ raise_exception('never') }}", ThinkingForm()),
    ],
)
def test_the_form_of_a_template_is_found_by_rendering_it(source: str, form: ThinkingForm) -> None:
    assert thinking_form_of(ChatTemplate(source, {}).rendered_question) == form


def test_a_model_without_a_switch_always_thinks_if_its_family_does() -> None:
    switched, none = ThinkingForm(switch="enable_thinking"), ThinkingForm()

    assert not model_thinking_of(HERMES, switched, "<think>\n\n</think>\n\n").always_thinks
    assert model_thinking_of(HERMES, switched, "<|im_start|>assistant\n<think>\n").always_thinks
    assert model_thinking_of(GPT_OSS, none, "<|start|>assistant").always_thinks
    assert model_thinking_of(LLAMA3, none, "") == ModelThinking(form=none)
