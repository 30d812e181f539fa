"""The grammar of a choice's whole output: thoughts, then text, calls or a body of a given format.

It is made from the same description of the family as the parser. After the beginning of a call only a valid call of a
declared tool can be written.
"""

from collections.abc import Sequence
from enum import StrEnum

import msgspec

from api.protocol.families.bound_family import BoundFamily
from api.protocol.families.family import CallForm, Family, Region
from api.protocol.families.grammar.argument_grammar import arguments_of
from api.protocol.families.grammar.grammar_text import GrammarText, Part, grammar_of_part, one_of

# What the parser leaves out between the end of a thought or call and what follows.
_SPACE = r"/[ \n]{0,4}/"
# How calls begin that need no trigger.
_BARE = r'\s*\{\s*("name"|"type"\s*:\s*"function")'


class ToolPart(msgspec.Struct, frozen=True, kw_only=True):
    """A tool that may be called.

    part: the grammar of its arguments, a JSON schema that compiles; or of its free text if it is custom, where None is
          any text
    """

    name: str
    is_custom: bool = False
    part: Part | None = None


class ChoiceMode(StrEnum):
    """Whether calls may, must or must not be written."""

    NONE = "none"
    AUTO = "auto"
    REQUIRED = "required"


class ToolChoice(msgspec.Struct, frozen=True, kw_only=True):
    """Which calls an answer holds.

    names:   the tools that may be called; None is all
    is_once: whether there is at most one call, as where one tool is named or calls are not parallel; nothing follows it
    """

    mode: ChoiceMode = ChoiceMode.AUTO
    names: frozenset[str] | None = None
    is_once: bool = False


class ThoughtMode(StrEnum):
    """Whether an output begins with a thought.

    OPEN: the prompt has opened one
    """

    NONE = "none"
    ALLOWED = "allowed"
    OPEN = "open"


def output_grammar(
    bound: BoundFamily,
    *,
    tools: Sequence[ToolPart] = (),
    choice: ToolChoice | None = None,
    body: Part | None = None,
    thoughts: ThoughtMode = ThoughtMode.NONE,
) -> str | None:
    """llguidance's grammar of an output; None where everything may be written.

    body: the format of the answer's text, a part without a name; None is any text
    """
    choice = choice or ToolChoice()
    if not tools and thoughts is ThoughtMode.NONE and bound.family.answer is None:
        return None if body is None else grammar_of_part(body)
    if body is None and not tools:
        return None
    writer = _Writer(bound, tools, choice, body, thoughts)
    return writer.grammar.finished(writer.start())


class _Writer:
    """Writes one grammar."""

    def __init__(
        self,
        bound: BoundFamily,
        tools: Sequence[ToolPart],
        choice: ToolChoice,
        body: Part | None,
        thoughts: ThoughtMode,
    ) -> None:
        self.grammar = GrammarText(bound.token_ids)
        self._family: Family = bound.family
        self._choice = choice
        self._body = body
        self._thoughts = thoughts if self._family.thinking is not None else ThoughtMode.NONE
        allowed = [tool for tool in tools if choice.names is None or tool.name in choice.names]
        self._tools = [] if choice.mode is ChoiceMode.NONE else allowed
        self._has_tools = bool(tools) and self._family.calls is not None
        # The rules of tools' arguments, by name.
        self._ends: dict[str, str] = {}

    def start(self) -> str:
        """The body of the start rule."""
        answer = self._harmony() if self._family.answer is not None else self._answer()
        region = self._family.thinking
        if region is None or self._thoughts is ThoughtMode.NONE or self._family.answer is not None:
            return answer
        thought = self._thought(region, is_open=self._thoughts is ThoughtMode.OPEN)
        return f"{thought} {answer}" if self._thoughts is ThoughtMode.OPEN else f"({thought})? {answer}"

    def _thought(self, region: Region, *, is_open: bool) -> str:
        opening = "" if is_open else self.grammar.literal(region.opening.rstrip())
        rest = self.grammar.text_until(region.closing)
        after = self.grammar.literal(region.after) if region.after else _SPACE
        return " ".join(filter(None, [opening, rest, after]))

    @property
    def _forbidden(self) -> list[str]:
        """What free text must not hold, since the parser reads it otherwise."""
        region = self._family.thinking
        return [] if region is None or self._thoughts is ThoughtMode.NONE else [region.opening.rstrip()]

    # Families whose answer has no markers.

    def _answer(self) -> str:
        form = self._family.calls
        body = None if self._body is None else self.grammar.part("body", self._body)
        if form is None or not self._has_tools:
            return body or self.grammar.text_without(self._forbidden)
        if not self._tools:
            return body or self._text_without_calls(form)
        if self._choice.mode is ChoiceMode.REQUIRED:
            return self._calls(form, has_bare=True)
        if body is not None:
            return f"({body} | {self._calls(form, has_bare=False)})"
        return self._text_with_calls(form)

    def _text_without_calls(self, form: CallForm) -> str:
        return self.grammar.text_without([*self._forbidden, form.trigger], beginning=_BARE if form.is_bare else "")

    def _text_with_calls(self, form: CallForm) -> str:
        grammar = self.grammar
        beginning = _BARE if form.is_bare else ""
        before = grammar.text_until(form.trigger, self._forbidden, beginning=beginning)
        one = f"{before} {self._section(form)}"
        text = grammar.text_without([*self._forbidden, form.trigger], beginning=beginning)
        if form.is_bare:
            return f"({self._in_row(form, self._functions, opening='')} | {one} | {text})"
        return f"({text} | {one})" if self._choice.is_once else f"({one})* {text}?"

    def _calls(self, form: CallForm, *, has_bare: bool) -> str:
        """At least one call and no text."""
        section = self.grammar.rule("section", f"{self.grammar.literal(form.trigger)} {self._section(form)}")
        several = section if self._choice.is_once or form.separator is not None else f'{section} ("\\n"? {section})*'
        if has_bare and form.is_bare and self._functions:
            return f"({several} | {self._in_row(form, self._functions, opening='')})"
        return several

    @property
    def _functions(self) -> list[ToolPart]:
        return [tool for tool in self._tools if not tool.is_custom]

    def _section(self, form: CallForm) -> str:
        """What follows a trigger."""
        alternatives = [self._custom_call(form, tool) for tool in self._tools if tool.is_custom]
        if self._functions:
            # The end of a harmony call is an end-of-sequence token, which is allowed wherever a grammar may stop.
            closing = "" if self._family.answer is not None else form.closing
            row = [
                self._in_row(form, self._functions, opening=form.opening),
                self.grammar.literal(form.ending + closing),
            ]
            alternatives.append(" ".join(filter(None, row)))
        return self.grammar.rule("calls", one_of(alternatives))

    def _in_row(self, form: CallForm, tools: Sequence[ToolPart], *, opening: str) -> str:
        """One call, or several with separators between them.

        A literal reaches to the arguments, since two literals with one beginning must differ where the first ends.
        """
        grammar = self.grammar
        ends = [(tool, self._behind_head(form, tool)) for tool in tools]
        first = one_of([f"{grammar.literal(opening + form.head + tool.name + form.joint)} {end}" for tool, end in ends])
        if self._choice.is_once or form.separator is None:
            return first
        before = form.separator + form.head
        following = [f"{grammar.literal(before + tool.name + form.joint)} {end}" for tool, end in ends]
        return f"{first} {grammar.rule('following', one_of(following))}*"

    def _behind_head(self, form: CallForm, tool: ToolPart) -> str:
        """The arguments of a call and what follows them."""
        if tool.name not in self._ends:
            arguments = arguments_of(self.grammar, form, tool.part)
            end = " ".join(filter(None, [arguments, self.grammar.literal(form.tail)]))
            self._ends[tool.name] = self.grammar.rule("arguments", end or '""')
        return self._ends[tool.name]

    def _custom_call(self, form: CallForm, tool: ToolPart) -> str:
        grammar = self.grammar
        head = grammar.literal(form.custom_head + tool.name + form.custom_joint)
        end = form.custom_tail + ("" if self._family.answer is not None else form.closing)
        if tool.part is not None:
            return f"{head} {grammar.part('input', tool.part)} {grammar.literal(end)}"
        return f"{head} {grammar.text_until(end) if end else grammar.text_without(()) + '?'}"

    # Families that put the answer between markers.

    def _harmony(self) -> str:
        grammar, family = self.grammar, self._family
        assert family.answer is not None
        end = f"{grammar.text_until(family.answer.closing)} {grammar.literal(family.answer.after)}"
        before = [f"{grammar.literal(opening)} {end}" for opening in family.asides]
        if family.thinking is not None:
            before.append(self._thought(family.thinking, is_open=False))
        ends = []
        if self._tools and family.calls is not None:
            ends.append(f"{grammar.literal(family.calls.trigger)} {self._section(family.calls)}")
        if self._choice.mode is not ChoiceMode.REQUIRED or not self._tools:
            body = grammar.text_without(()) + "?" if self._body is None else grammar.part("body", self._body)
            ends.append(f"{grammar.literal(family.answer.opening)} {body}")
        first = ""
        if self._thoughts is ThoughtMode.OPEN and family.thinking is not None:
            first = self._thought(family.thinking, is_open=True)
        return f"{first} {grammar.rule('before', one_of(before))}* {one_of(ends)}"
