"""The request fields that ask for thinking, on both wires.

`chat_template_kwargs` and `thinking_token_budget` have the names of vLLM and SGLang and come through the SDK's
`extra_body`. Of the first, only the names that switch thinking are taken: a template may read others that change more
than that.
"""

from typing import Annotated, Literal

from pydantic import Field

from api.protocol.shared.wire import INT64_MAX, Wire, only
from api.protocol.thinking.thinking_choice import NOT_ASKED, ThinkingAsked

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
_Budget = Annotated[int, Field(ge=0, le=INT64_MAX)]


class ThinkingArguments(Wire):
    """Arguments for the chat template."""

    enable_thinking: bool | None = None
    thinking: bool | None = None
    reasoning_effort: Effort | None = None


# All that say something of thinking, in any wire.
_FIELDS = frozenset({"chat_template_kwargs", "thinking_token_budget", "reasoning_effort", "reasoning"})


class ThinkingFields(Wire):
    """Fields of both wires."""

    chat_template_kwargs: ThinkingArguments | None = None
    thinking_token_budget: _Budget | None = None

    def _asked(self, effort: str | None, effort_param: str) -> ThinkingAsked:
        if self.model_fields_set.isdisjoint(_FIELDS):
            return NOT_ASKED
        arguments = self.chat_template_kwargs
        given = {} if arguments is None else {name: getattr(arguments, name) for name in ThinkingArguments.model_fields}
        return ThinkingAsked(
            effort=effort,
            effort_param=effort_param,
            budget=self.thinking_token_budget,
            kwargs={name: value for name, value in given.items() if value is not None},
        )


class ChatThinkingFields(ThinkingFields):
    """Fields of Chat Completions. A thought that is not shown is still counted."""

    reasoning_effort: Effort | None = None
    include_reasoning: bool | None = None
    separate_reasoning: bool | None = None

    @property
    def thinking(self) -> ThinkingAsked:
        """What the request says of thinking."""
        return self._asked(self.reasoning_effort, "reasoning_effort")


class ReasoningOptions(Wire):
    """Reasoning options of Responses. The thought itself is shown, so there is no summary of it."""

    effort: Effort | None = None
    summary: Annotated[object, only("auto")] = None
    generate_summary: Annotated[object, only("auto")] = None
    mode: Annotated[object, only("standard")] = None
    context: Literal["auto", "current_turn", "all_turns"] | None = None


class ResponseThinkingFields(ThinkingFields):
    """Fields of Responses."""

    reasoning: ReasoningOptions | None = None

    @property
    def thinking(self) -> ThinkingAsked:
        """What the request says of thinking."""
        return self._asked(None if self.reasoning is None else self.reasoning.effort, "reasoning.effort")
