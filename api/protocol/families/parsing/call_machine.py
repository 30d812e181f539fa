"""Reading a section of calls: heads, names, arguments and ends, as far as the text goes."""

from enum import Enum, auto

from api.protocol.answer.segments import CallClosed, CallOpened, Text
from api.protocol.families.literal_words import IMPOSSIBLE, UNDECIDED, match_words
from api.protocol.families.parsing.argument_readers import ArgumentReader
from api.protocol.families.parsing.held_text import HeldText
from api.protocol.families.parsing.parser_plan import CallableTool, CallPlan


class _State(Enum):
    """What is read next. INACTIVE is outside of calls."""

    INACTIVE = auto()
    BARE_HEAD = auto()
    HEAD = auto()
    JOINT = auto()
    ARGUMENTS = auto()
    FREE_INPUT = auto()
    TAIL = auto()
    NEXT_CALL = auto()
    UNREADABLE = auto()
    REST_OF_SECTION = auto()


class CallMachine:
    """Reads the calls of one choice.

    was_refused: whether the last section turned out to be none, and its trigger was given out as text
    """

    def __init__(self, plan: CallPlan, held: HeldText) -> None:
        self._plan = plan
        self._held = held
        # Calls may stand at the very beginning without a trigger.
        self._state = _State.BARE_HEAD if plan.form.is_bare else _State.INACTIVE
        self._tool: CallableTool | None = None
        self._reader: ArgumentReader | None = None
        self.was_refused = False
        self._steps = {
            _State.BARE_HEAD: self._bare_head,
            _State.HEAD: self._head,
            _State.JOINT: self._joint,
            _State.ARGUMENTS: self._arguments,
            _State.FREE_INPUT: self._free_input,
            _State.TAIL: self._tail,
            _State.NEXT_CALL: self._next_call,
            _State.UNREADABLE: self._unreadable,
            _State.REST_OF_SECTION: self._rest_of_section,
        }

    @property
    def is_active(self) -> bool:
        """Whether a call is being read."""
        return self._state is not _State.INACTIVE

    def begin(self) -> None:
        """Read a section. The held text begins with its trigger, which is kept until a call's head is known."""
        self._state, self.was_refused = _State.HEAD, False

    def step(self) -> bool:
        """Read on; returns whether there may be more to read in the text that is there."""
        return self._steps[self._state]()

    def close(self) -> bool:
        """Give out what was held back at the end of the output; returns whether it is still to be given, as text."""
        match self._state:
            case _State.UNREADABLE | _State.FREE_INPUT:
                self._held.give_arguments(self._held.take_rest())
            case _State.HEAD:
                return False  # A call that was cut before its name was complete is not shown.
            case _State.JOINT | _State.ARGUMENTS:
                return False  # A part of a literal between name, keys and values.
            case _State.TAIL | _State.NEXT_CALL | _State.REST_OF_SECTION:
                return not self._plan.end
            case _:
                return True
        return False

    def _bare_head(self) -> bool:
        """A call without a trigger; anything else is text."""
        end, tool = self._plan.match_head(self._held.text, self._held.position, is_first=False)
        if end == IMPOSSIBLE:
            self._state = _State.INACTIVE
        return end != UNDECIDED and self._opened(end, tool)

    def _head(self) -> bool:
        held, trigger = self._held, self._plan.form.trigger
        end, tool = self._plan.match_head(held.text, held.position + len(trigger), is_first=True)
        if end == IMPOSSIBLE:
            # No call begins here; one may begin right behind the trigger's text.
            held.give(Text, trigger)
            held.position += len(trigger)
            self._state, self.was_refused = _State.INACTIVE, True
        return end != UNDECIDED and self._opened(end, tool)

    def _opened(self, end: int, tool: CallableTool | None) -> bool:
        """Open a call whose name ends there, if it is one."""
        if tool is not None:
            self._tool, self._held.position, self._state = tool, end, _State.JOINT
            self._held.segments.append(CallOpened(tool.name, tool.is_custom))
        return True

    def _joint(self) -> bool:
        held, plan, tool = self._held, self._plan, self._tool
        assert tool is not None
        found = plan.match_joint(held.text, held.position, tool)
        if found == IMPOSSIBLE:
            return self._joint_is_missing(tool)
        if found == UNDECIDED:
            return False
        held.position = found
        self._reader = None if tool.is_custom else plan.reader_of(tool)
        self._state = _State.FREE_INPUT if tool.is_custom else _State.ARGUMENTS
        return True

    def _joint_is_missing(self, tool: CallableTool) -> bool:
        found = self._plan.match_no_arguments(self._held.text, self._held.position, tool)
        if found == UNDECIDED:
            return False
        if found == IMPOSSIBLE:
            self._state = _State.UNREADABLE
            return True
        self._held.give_arguments("{}")
        self._close_call(_State.NEXT_CALL)
        self._held.position = found
        return True

    def _close_call(self, state: _State) -> None:
        self._held.segments.append(CallClosed())
        self._held.skips_space = True
        self._tool = self._reader = None
        self._state = state

    def _arguments(self) -> bool:
        held, reader = self._held, self._reader
        assert reader is not None
        out: list[str] = []
        held.position = reader.read(held.text, held.position, out)
        held.give_arguments("".join(out))
        if reader.is_done:
            self._close_call(_State.TAIL)
        elif reader.is_broken:
            self._state = _State.UNREADABLE
        else:
            return False
        return True

    def _free_input(self) -> bool:
        if not self._held.arguments_until(self._plan.custom_end):
            return False
        self._close_call(_State.INACTIVE)
        return True

    def _unreadable(self) -> bool:
        """Arguments that are none: given out as they are until the section ends. The call stays open."""
        if not self._held.arguments_until(self._plan.section_end):
            return False
        self._state, self._held.skips_space = _State.INACTIVE, True
        return True

    def _tail(self) -> bool:
        found = match_words(self._held.text, self._held.position, self._plan.tail)
        if found == UNDECIDED:
            return False
        if found == IMPOSSIBLE:
            self._leave_section()
        else:
            self._held.position, self._state = found, _State.NEXT_CALL
        return True

    def _next_call(self) -> bool:
        """Behind a call: the section's end, or another call in it."""
        held, plan = self._held, self._plan
        end = match_words(held.text, held.position, plan.end) if plan.end else IMPOSSIBLE
        if end >= 0:
            held.position, self._state = end, _State.INACTIVE
            return True
        following, tool = plan.match_following(held.text, held.position)
        if following >= 0:
            return self._opened(following, tool)
        if UNDECIDED in (end, following):
            return False
        self._leave_section()
        return True

    def _leave_section(self) -> None:
        """Go on where neither a call nor the section's end stands."""
        self._state = _State.REST_OF_SECTION if self._plan.form.closing else _State.INACTIVE

    def _rest_of_section(self) -> bool:
        """Whatever stands between a call and the end of its section belongs to nothing."""
        if self._held.read_until(self._plan.section_end, None) is None:
            return False
        self._state = _State.INACTIVE
        return True
