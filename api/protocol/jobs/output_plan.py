"""The output plan of a job: what its choices may write, and how that is read, from tools, format and thinking."""

from collections.abc import Callable, Iterator, Sequence

import msgspec
from msgspec import structs

from api.protocol.answer.segments import ParserStart
from api.protocol.families.bound_family import BoundFamily
from api.protocol.families.family import THINKING, CallForm, Family, literals_of
from api.protocol.families.grammar.grammar_text import Part, grammar_of_part
from api.protocol.families.grammar.output_grammar import ChoiceMode, ThoughtMode, ToolChoice, ToolPart, output_grammar
from api.protocol.prompt.tokenizing import PromptTools
from api.protocol.thinking.thinking_choice import NO_THOUGHTS, ThinkingChoice
from storage.contract import MARKER_SIGN, OutputFormat, ThinkingLimits


class OutputPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What goes into the job's spec and into its context; None for plain text."""

    output: OutputFormat | None = None
    parser: ParserStart | None = None

    @property
    def context(self) -> dict[str, object]:
        """What the folds need."""
        return {} if self.parser is None else self.parser.stored


PLAIN_OUTPUT = OutputPlan()


def plan_output(
    model: PromptTools,
    prompt: Sequence[int],
    *,
    tools: Sequence[ToolPart] = (),
    choice: ToolChoice | None = None,
    body: Part | None = None,
    thinking: ThinkingChoice = NO_THOUGHTS,
) -> OutputPlan:
    """The plan of a job with this prompt.

    body: the format of the answer's text, see `output_grammar`
    """
    if model.family.family.thinking is None and not tools and body is None and model.family.family.answer is None:
        return PLAIN_OUTPUT
    return plan_of(
        model.family,
        model.end_of(prompt),
        encode=lambda text: model.encode(text, add_special_tokens=False),
        tools=tools,
        choice=choice,
        body=body,
        thinking=thinking,
    )


def plan_of(
    bound: BoundFamily,
    prompt_end: str,
    *,
    encode: Callable[[str], Sequence[int]],
    tools: Sequence[ToolPart] = (),
    choice: ToolChoice | None = None,
    body: Part | None = None,
    thinking: ThinkingChoice = NO_THOUGHTS,
) -> OutputPlan:
    """The plan of a job of this family.

    prompt_end: the text of the prompt's last tokens, special ones included
    encode:     token ids of a text without special tokens around it
    body:       the format of the answer's text, see `output_grammar`
    """
    state = bound.family.state_at(prompt_end)
    has_thoughts = bound.family.thinking is not None and (
        thinking.is_on or state == THINKING or bound.family.answer is not None
    )
    family = bound.family if has_thoughts else structs.replace(bound.family, thinking=None)
    is_marked = has_thoughts or family.answer is not None
    has_calls = bool(tools) and family.calls is not None
    if not is_marked and not has_calls and body is None:
        return PLAIN_OUTPUT
    reads_calls = has_calls and (choice or ToolChoice()).mode is not ChoiceMode.NONE
    family = family if reads_calls else structs.replace(family, calls=None)
    thoughts = ThoughtMode.OPEN if state == THINKING else ThoughtMode.ALLOWED if has_thoughts else ThoughtMode.NONE
    written = structs.replace(bound, family=structs.replace(bound.family, thinking=family.thinking))
    output = OutputFormat(
        grammar=output_grammar(written, tools=tools, choice=choice, body=body, thoughts=thoughts),
        marker_ids=tuple(_marker_ids(family, bound)),
        spans=tuple(_spans(family)),
        thinking=_limits(family, thinking, bound, encode, is_open=state == THINKING),
    )
    if not is_marked and not reads_calls:
        return OutputPlan(output=output)
    start = ParserStart(
        name=family.name,
        state=state,
        tokens=tuple(bound.token_ids),
        reads_thoughts=has_thoughts,
        reads_calls=reads_calls,
        template=bound.template,
    )
    return OutputPlan(output=output, parser=start)


def plan_format(body: Part | None) -> OutputFormat | None:
    """The output of a job that is a prompt's continuation: nothing but its format, if it has one."""
    return None if body is None else OutputFormat(grammar=grammar_of_part(body))


def _marker_ids(family: Family, bound: BoundFamily) -> Iterator[int]:
    """Of the markers that a parser of this family reads."""
    literals = "\0".join(literals_of(family))
    return (token_id for text, token_id in bound.token_ids.items() if f"{MARKER_SIGN}{text}" in literals)


def _spans(family: Family) -> Iterator[tuple[str, str]]:
    """Of calls; those of thoughts are in their limits."""
    form: CallForm | None = family.calls
    if form is not None and form.closing:
        yield form.trigger, form.closing


def _limits(
    family: Family,
    thinking: ThinkingChoice,
    bound: BoundFamily,
    encode: Callable[[str], Sequence[int]],
    *,
    is_open: bool,
) -> ThinkingLimits | None:
    region = family.thinking
    if region is None:
        return None
    closing_id = bound.token_ids.get(region.closing.replace(MARKER_SIGN, ""))
    closing_ids = tuple(encode(region.closing)) if closing_id is None else (closing_id,)
    return ThinkingLimits(
        opening=region.opening.rstrip(),
        closing=region.closing,
        closing_ids=closing_ids,
        is_open=is_open,
        max_tokens=thinking.max_tokens,
    )
