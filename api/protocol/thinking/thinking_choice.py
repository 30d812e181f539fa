"""The decision whether and how long a job thinks: from a request's fields and what the model can do."""

from collections.abc import Mapping

import msgspec

from api.protocol.prompt.thinking_form import EFFORT, ModelThinking
from storage.errors import InvalidRequest, ReasoningNotSupported

# Tokens of a thought for each effort; None is no limit.
BUDGETS: Mapping[str, int | None] = {
    "minimal": 256,
    "low": 1024,
    "medium": 4096,
    "high": 16384,
    "xhigh": 32768,
    "max": None,
}
NO_EFFORT = "none"
# The levels that templates know.
_LEVELS: Mapping[str, str] = {"minimal": "low", "xhigh": "high", "max": "high"}


class ThinkingAsked(msgspec.Struct, frozen=True, kw_only=True):
    """What a request says of thinking; None where it says nothing.

    effort:       one of BUDGETS or NO_EFFORT
    effort_param: the field that says it
    budget:       tokens of a thought; 0 is none
    kwargs:       arguments for the chat template
    """

    effort: str | None = None
    effort_param: str = "reasoning_effort"
    budget: int | None = None
    kwargs: Mapping[str, object] = {}


NOT_ASKED = ThinkingAsked()


class ThinkingChoice(msgspec.Struct, frozen=True, kw_only=True):
    """What a job does.

    max_tokens: of a thought; None is no limit
    arguments:  of the chat template
    """

    is_on: bool = False
    max_tokens: int | None = None
    arguments: Mapping[str, object] = {}


NO_THOUGHTS = ThinkingChoice()


def thinking_choice(asked: ThinkingAsked, model: ModelThinking) -> ThinkingChoice:
    """What a job does. Thinking is off unless something asks for it, or the model cannot do without.

    An explicit argument of the template decides over an effort, and an explicit budget over that of an effort.

    raises: ReasoningNotSupported, and InvalidRequest for arguments that the template does not read or that contradict
    """
    if asked is NOT_ASKED and not model.always_thinks:
        return ThinkingChoice(arguments=model.form.arguments(is_on=False))
    _check_names(asked, model)
    wanted = _wanted(asked)
    if wanted and not model.can_think:
        raise ReasoningNotSupported("This model cannot think.", param=_param_of(asked, is_on=True))
    if wanted is False and model.always_thinks:
        raise ReasoningNotSupported("This model cannot do without thinking.", param=_param_of(asked, is_on=False))
    is_on = model.always_thinks or bool(wanted)
    effort = asked.kwargs.get(EFFORT, asked.effort)
    level = _LEVELS.get(effort, effort) if isinstance(effort, str) and effort != NO_EFFORT else None
    if asked.budget:
        max_tokens: int | None = asked.budget
    else:
        max_tokens = BUDGETS.get(effort) if isinstance(effort, str) else None
    return ThinkingChoice(
        is_on=is_on,
        max_tokens=max_tokens if is_on else None,
        arguments=model.form.arguments(is_on=is_on, effort=level if is_on else None),
    )


def _check_names(asked: ThinkingAsked, model: ModelThinking) -> None:
    unread = next((name for name in asked.kwargs if name not in model.form.names), None)
    if unread is not None:
        raise InvalidRequest(
            f"The chat template of this model does not read '{unread}'.", param=f"chat_template_kwargs.{unread}"
        )


def _switched(asked: ThinkingAsked) -> bool | None:
    """What an argument of the template says."""
    return next((value for value in asked.kwargs.values() if isinstance(value, bool)), None)


def _wanted(asked: ThinkingAsked) -> bool | None:
    """Whether the request asks for thinking (True), against it (False), or for nothing."""
    switched = _switched(asked)
    if switched is not None and asked.budget is not None and switched != bool(asked.budget):
        raise InvalidRequest(
            "'thinking_token_budget' and 'chat_template_kwargs' contradict each other.", param="thinking_token_budget"
        )
    if asked.budget and asked.effort == NO_EFFORT:
        raise InvalidRequest(
            f"'thinking_token_budget' and '{asked.effort_param}' contradict each other.", param="thinking_token_budget"
        )
    if switched is not None:
        return switched
    if asked.budget is not None:
        return asked.budget > 0
    effort = asked.kwargs.get(EFFORT, asked.effort)
    return None if effort is None else effort != NO_EFFORT


def _param_of(asked: ThinkingAsked, *, is_on: bool) -> str:
    """The field that asks for what the model cannot do."""
    for name, value in asked.kwargs.items():
        if value == is_on or isinstance(value, str):
            return f"chat_template_kwargs.{name}"
    return "thinking_token_budget" if asked.budget is not None and asked.effort is None else asked.effort_param
