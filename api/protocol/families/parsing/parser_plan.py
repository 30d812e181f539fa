"""What all choices of a job share when outputs are read: the literals of the family, and the tools."""

from collections.abc import Mapping, Sequence

import msgspec

from api.protocol.families.family import ArgumentForm, CallForm, Family
from api.protocol.families.literal_words import (
    IMPOSSIBLE,
    UNDECIDED,
    Finder,
    match_any,
    match_words,
    skip_space,
    words_of,
)
from api.protocol.families.parsing.argument_readers import ArgumentReader, JsonReader, TaggedReader
from api.protocol.families.parsing.dialect_reader import DialectReader

_MAX_NAME = 256
_NAME_PUNCTUATION = "_-."


class CallableTool(msgspec.Struct, frozen=True, kw_only=True):
    """What a parser must know of a tool.

    parameters: the schema of its arguments
    """

    name: str
    is_custom: bool = False
    parameters: Mapping[str, object] = {}


class ParserPlan:
    """A family and the tools that may be called; without tools, calls are text."""

    def __init__(self, family: Family, tools: Sequence[CallableTool]) -> None:
        self.family = family
        self.calls = CallPlan(family.calls, tools) if tools and family.calls is not None else None
        self.thinking_openings = () if family.thinking is None else (family.thinking.opening.strip(),)
        self.answer_openings = () if family.answer is None else (family.answer.opening, *family.asides)
        triggers = () if self.calls is None else (self.calls.form.trigger,)
        self.outside = Finder([*self.thinking_openings, *self.answer_openings, *triggers])
        self.thought_end = Finder([] if family.thinking is None else [family.thinking.closing])
        self.answer_end = Finder([] if family.answer is None else [family.answer.closing])


class CallPlan:
    """The words of a family's calls."""

    def __init__(self, form: CallForm, tools: Sequence[CallableTool]) -> None:
        self.form = form
        self._tools = {tool.name: tool for tool in tools}
        self._has_custom = any(tool.is_custom for tool in tools)
        self._heads = [words_of(head) for head in (form.head, *form.other_heads)]
        self._joints = [words_of(joint) for joint in (form.joint, *form.other_joints)]
        self._custom_head, self._custom_joint = words_of(form.custom_head), words_of(form.custom_joint)
        self._opening, self._separator = words_of(form.opening), words_of(form.separator or "")
        self.tail, self.end = words_of(form.tail), words_of(form.ending + form.closing)
        # The end of a call without arguments, behind its name: an object of the name alone has a quotation mark there.
        self.no_arguments = ('"', *self.tail) if '"' in form.joint else self.tail
        # What may stand behind a name: the beginning of a joint, or that end.
        firsts = [words[:1] for words in self._joints]
        ends = [self.no_arguments[:1]] if self.no_arguments else []
        self._behind_name = [*firsts, *ends] if all(firsts) else [()]
        self.section_end = Finder([form.closing] if form.closing else [])
        custom_end = form.custom_tail + form.closing
        self.custom_end = Finder([custom_end] if custom_end else [])

    def match_head(self, text: str, position: int, *, is_first: bool) -> tuple[int, CallableTool | None]:
        """The end of the name of the call whose head stands at `position`, and its tool; IMPOSSIBLE or UNDECIDED.

        is_first: whether it is the first call of its section
        """
        found = self._match_custom_head(text, position)
        if found[0] != IMPOSSIBLE:
            return found
        if is_first:
            position = match_words(text, position, self._opening)
            if position < 0:
                return position, None
        index, position = match_any(text, position, self._heads)
        if position >= 0 and not self._heads[index]:
            position = skip_space(text, position)
        if position < 0:
            return position, None
        return self._match_name(text, position, self._behind_name, is_custom=False)

    def match_following(self, text: str, position: int) -> tuple[int, CallableTool | None]:
        """As `match_head`, for a further call of a section with the separator before it."""
        if self.form.separator is None:
            return IMPOSSIBLE, None
        position = match_words(text, position, self._separator)
        return (position, None) if position < 0 else self.match_head(text, position, is_first=False)

    def _match_custom_head(self, text: str, position: int) -> tuple[int, CallableTool | None]:
        if not self._has_custom:
            return IMPOSSIBLE, None
        position = match_words(text, position, self._custom_head)
        if position < 0:
            return position, None
        return self._match_name(text, position, [self._custom_joint[:1]], is_custom=True)

    def _match_name(
        self, text: str, position: int, behind: Sequence[Sequence[str]], *, is_custom: bool
    ) -> tuple[int, CallableTool | None]:
        end = position
        while end < len(text) and end - position <= _MAX_NAME and _is_of_name(text[end]):
            end += 1
        name = text[position:end]
        if end == len(text):
            tools = self._tools.values()
            may_grow = any(one.is_custom == is_custom and one.name.startswith(name) for one in tools)
            return UNDECIDED if may_grow else IMPOSSIBLE, None
        tool = self._tools.get(name)
        if tool is None or tool.is_custom != is_custom:
            return IMPOSSIBLE, None
        _, found = match_any(text, end, behind)
        return (found, None) if found < 0 else (end, tool)

    def match_joint(self, text: str, position: int, tool: CallableTool) -> int:
        """The position of the arguments behind a name; IMPOSSIBLE or UNDECIDED."""
        if not tool.is_custom:
            return match_any(text, position, self._joints)[1]
        found = match_words(text, position, self._custom_joint)
        if found >= 0 and self.form.custom_joint.endswith("\n"):
            # One line break belongs to the joint, all further white space to the text.
            return UNDECIDED if found == len(text) else found + (text[found] == "\n")
        return found

    def match_no_arguments(self, text: str, position: int, tool: CallableTool) -> int:
        """The end of a call that has no arguments, behind its name; IMPOSSIBLE or UNDECIDED."""
        if tool.is_custom or not self.no_arguments:
            return IMPOSSIBLE
        return match_words(text, position, self.no_arguments)

    def reader_of(self, tool: CallableTool) -> ArgumentReader:
        """A reader of the arguments of a call of this tool."""
        match self.form.arguments:
            case ArgumentForm.JSON:
                return JsonReader()
            case ArgumentForm.TAGGED:
                return TaggedReader(self.form, tool.parameters)
            case _:
                return DialectReader(self.form)


def _is_of_name(character: str) -> bool:
    return character.isalnum() or character in _NAME_PUNCTUATION
