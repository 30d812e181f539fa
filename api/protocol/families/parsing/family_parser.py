"""The segment parser of a family: incremental, and the same however the text of a choice is cut.

It holds back only what is undecided: the longest end of the text that may begin a marker, white space that may belong
to one, and the head of a call until its tool is known. What cannot be read as a call is text. It takes linear time.
"""

from collections.abc import Sequence
from enum import Enum, auto

from api.protocol.answer.segments import Reasoning, Segment, Text
from api.protocol.families.family import THINKING, Family
from api.protocol.families.parsing.call_machine import CallMachine
from api.protocol.families.parsing.held_text import HeldText
from api.protocol.families.parsing.parser_plan import CallableTool, ParserPlan


class FamilyParser:
    """The segment parser of a job: one machine for each choice.

    tools: those that may be called; without any, calls are text
    """

    def __init__(self, family: Family, state: str = "", tools: Sequence[CallableTool] = ()) -> None:
        self._plan = ParserPlan(family, tools)
        self._state = state
        self._choices: dict[int, _ChoiceMachine] = {}

    def push(self, choice: int, text: str, token_ids: Sequence[int]) -> Sequence[Segment]:
        """The segments that became certain."""
        return self._machine(choice).push(text)

    def close(self, choice: int) -> Sequence[Segment]:
        """The segments of held-back text."""
        return self._machine(choice).close()

    def _machine(self, choice: int) -> "_ChoiceMachine":
        machine = self._choices.get(choice)
        if machine is None:
            machine = self._choices[choice] = _ChoiceMachine(self._plan, self._state)
        return machine


class _State(Enum):
    OUTSIDE = auto()
    THINKING = auto()
    ANSWER = auto()


class _ChoiceMachine:
    """Reads the output of one choice."""

    def __init__(self, plan: ParserPlan, state: str) -> None:
        self._plan = plan
        self._state = _State.THINKING if state == THINKING else _State.OUTSIDE
        self._held = HeldText(skips_space=state == THINKING)
        self._calls = None if plan.calls is None else CallMachine(plan.calls, self._held)
        self._steps = {
            _State.OUTSIDE: self._outside,
            _State.THINKING: self._thinking,
            _State.ANSWER: self._answer,
        }

    def push(self, text: str) -> Sequence[Segment]:
        """The segments that are certain with this text."""
        self._held.add(text)
        while not self._held.is_empty and self._step():
            pass
        return self._held.take_segments()

    def _step(self) -> bool:
        if self._state is _State.OUTSIDE and self._calls is not None and self._calls.is_active:
            return self._calls.step()
        return self._steps[self._state]()

    def close(self) -> Sequence[Segment]:
        """What was held back, as text of whatever is open."""
        if self._state is _State.THINKING:
            self._held.give(Reasoning, self._held.take_rest())
        elif self._is_text_at_end():
            self._held.give(Text, self._held.take_rest())
        return self._held.take_segments()

    def _is_text_at_end(self) -> bool:
        if self._state is _State.OUTSIDE and self._calls is not None and self._calls.is_active:
            return self._calls.close()
        return self._plan.family.answer is None or self._state is _State.ANSWER

    def _outside(self) -> bool:
        plan, held = self._plan, self._held
        if self._calls is not None and self._calls.was_refused and plan.family.answer is not None:
            # What is no call in a channel is a text of that channel.
            self._calls.was_refused = False
            self._state = _State.ANSWER
            return True
        marker = held.read_until(plan.outside, Text if plan.family.answer is None else None)
        if marker is None:
            return False
        if marker in plan.thinking_openings:
            self._state, held.skips_space = _State.THINKING, True
        elif marker in plan.answer_openings:
            self._state = _State.ANSWER
        else:
            assert self._calls is not None
            held.position -= len(marker)
            self._calls.begin()
        return True

    def _thinking(self) -> bool:
        if self._held.read_until(self._plan.thought_end, Reasoning) is None:
            return False
        self._state, self._held.skips_space = _State.OUTSIDE, True
        return True

    def _answer(self) -> bool:
        if self._held.read_until(self._plan.answer_end, Text) is None:
            return False
        self._state = _State.OUTSIDE
        return True
