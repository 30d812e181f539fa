"""Thinking forms: which switch and which levels a chat template knows, found out by trial renderings."""

from collections.abc import Callable, Mapping

import msgspec

from api.protocol.families.family import THINKING, Family

# Renders a question with these arguments of the template; None where the template refuses it.
RenderWith = Callable[[Mapping[str, object]], str | None]

SWITCHES = ("enable_thinking", "thinking")
EFFORT = "reasoning_effort"
# The arguments of a prompt where nothing is known of a template.
NO_THINKING: Mapping[str, object] = {"enable_thinking": False}


class ThinkingForm(msgspec.Struct, frozen=True, kw_only=True):
    """What a chat template reads.

    switch:      the name of its switch; None where it has none
    has_efforts: whether it knows levels, under EFFORT
    """

    switch: str | None = None
    has_efforts: bool = False

    @property
    def names(self) -> frozenset[str]:
        """The names that it reads."""
        return frozenset([*([self.switch] if self.switch else []), *([EFFORT] if self.has_efforts else [])])

    def arguments(self, *, is_on: bool, effort: str | None = None) -> dict[str, object]:
        """The template's arguments for a prompt."""
        switched: dict[str, object] = {self.switch or "enable_thinking": is_on}
        return {**switched, EFFORT: effort} if self.has_efforts and effort is not None else switched


class ModelThinking(msgspec.Struct, frozen=True, kw_only=True):
    """What a model can do.

    can_think:     whether it writes thoughts at all
    always_thinks: whether nothing switches them off
    """

    form: ThinkingForm = ThinkingForm()
    can_think: bool = False
    always_thinks: bool = False


def model_thinking_of(family: Family, form: ThinkingForm, prompt: str | None) -> ModelThinking:
    """What a model of this family can do.

    prompt: a rendered one with thinking off; None where the template renders none
    """
    if family.thinking is None:
        return ModelThinking(form=form)
    is_open = prompt is not None and family.state_at(prompt) == THINKING
    return ModelThinking(form=form, can_think=True, always_thinks=form.switch is None or is_open)


def thinking_form_of(render: RenderWith) -> ThinkingForm:
    """The form of the template that `render` renders."""
    switch = next((name for name in SWITCHES if _differ(render, name, True, False)), None)
    on: Mapping[str, object] = {} if switch is None else {switch: True}
    return ThinkingForm(switch=switch, has_efforts=_differ(render, EFFORT, "low", "high", on))


def _differ(
    render: RenderWith, name: str, first: object, second: object, others: Mapping[str, object] | None = None
) -> bool:
    one, other = render({**(others or {}), name: first}), render({**(others or {}), name: second})
    return one is not None and other is not None and one != other
