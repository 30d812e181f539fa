"""The output plan of a job: nothing for plain text, else what a worker and a parser need."""

import json
from collections.abc import Sequence

import pytest

from api.protocol.answer.segments import CallArguments, CallClosed, CallOpened, ParserStart, Reasoning, Text
from api.protocol.families.bound_family import BoundFamily, bind
from api.protocol.families.family_table import FAMILIES, PLAIN
from api.protocol.families.grammar.output_grammar import ChoiceMode, ToolChoice
from api.protocol.families.response_template import family_of_template
from api.protocol.families.stored_parser import parser_of
from api.protocol.jobs.output_plan import PLAIN_OUTPUT, OutputPlan, plan_of
from api.protocol.thinking.thinking_choice import ThinkingChoice
from storage.contract import MARKER_SIGN, JobHeader, JobKind
from storage.errors import ModelUnavailable
from tests.protocol.examples import header
from tests.protocol.families.recorded import PARTS, bound_to_tokens, joined
from tests.protocol.families.test_output_grammar import BODY

THINKING_PROMPT, PROMPT = "<|im_start|>assistant\n<think>\n", "<|im_start|>assistant\n"
HERMES = bound_to_tokens(FAMILIES["hermes"], has_tokens=True, first_id=10)
ON = ThinkingChoice(is_on=True, max_tokens=5)


def plan(bound: BoundFamily = HERMES, prompt: str = PROMPT, **asked: object) -> OutputPlan:
    return plan_of(bound, prompt, encode=encoded, **asked)  # type: ignore[arg-type] # fields of the plan


def encoded(text: str) -> Sequence[int]:
    return list(text.encode())


def job_of(planned: OutputPlan, *tools: dict[str, object]) -> JobHeader:
    assert planned.parser is not None
    context = json.loads(json.dumps(planned.parser.stored))
    return header(JobKind.CHAT, request={"tools": list(tools)}, context=context)


def test_a_job_without_tools_format_and_thoughts_has_no_plan() -> None:
    assert plan() == PLAIN_OUTPUT
    assert plan(bind(PLAIN, {}.get)) == PLAIN_OUTPUT
    assert plan(bind(PLAIN, {}.get), thinking=ON, tools=PARTS) == PLAIN_OUTPUT


def test_a_format_alone_needs_no_parser() -> None:
    planned = plan(body=BODY)

    assert planned.parser is None
    assert planned.output is not None
    assert planned.output.grammar is not None
    assert planned.output.marker_ids == ()
    assert planned.output.thinking is None


def test_a_thought_has_its_markers_its_limit_and_its_span() -> None:
    planned = plan(thinking=ON)

    assert planned.output is not None
    limits = planned.output.thinking
    assert limits is not None
    assert (limits.opening, limits.closing) == (f"{MARKER_SIGN}<think>", f"{MARKER_SIGN}</think>")
    assert (limits.closing_ids, limits.is_open, limits.max_tokens) == ((11,), False, 5)
    assert planned.output.marker_ids == (10, 11)
    assert planned.output.spans == ()
    assert planned.output.grammar is None


def test_a_prompt_that_opens_a_thought_begins_inside_it() -> None:
    planned = plan(prompt=THINKING_PROMPT)

    assert planned.output is not None
    assert planned.output.thinking is not None
    assert planned.output.thinking.is_open
    parser = parser_of(job_of(planned))
    assert parser is not None
    assert joined(parser.push(0, f"\nHm.\n{MARKER_SIGN}</think>\n\n4", ())) == [Reasoning("Hm."), Text("4")]


def test_letters_close_a_thought_where_no_token_does() -> None:
    planned = plan(bound_to_tokens(FAMILIES["hermes"], has_tokens=False), thinking=ON)

    assert planned.output is not None
    assert planned.output.marker_ids == ()
    assert planned.output.thinking is not None
    assert planned.output.thinking.closing_ids == tuple(b"</think>")


def test_the_parser_of_a_job_knows_the_tools_of_its_request_on_either_wire() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    planned = plan(bound_to_tokens(FAMILIES["qwen3_coder"], has_tokens=False), tools=PARTS)
    flat = {"type": "function", "name": "count", "parameters": schema}
    for tool, name in (
        ({"type": "function", "function": {"name": "count", "parameters": schema}}, "count"),
        (flat, "count"),
        ({"type": "namespace", "name": "s", "tools": [flat]}, "s.count"),
    ):
        text = f"<tool_call>\n<function={name}>\n<parameter=n>\n3\n</parameter>\n</function>\n</tool_call>"
        parser = parser_of(job_of(planned, tool))
        assert parser is not None
        assert joined(parser.push(0, text, ())) == [CallOpened(name), CallArguments('{"n": 3}'), CallClosed()]


def test_where_no_call_may_be_written_none_is_read() -> None:
    planned = plan(tools=PARTS, choice=ToolChoice(mode=ChoiceMode.NONE))

    assert planned.parser is None
    assert planned.output is not None
    assert planned.output.grammar is not None
    assert planned.output.marker_ids == ()


def test_a_job_without_thoughts_does_not_read_them() -> None:
    planned = plan(bound_to_tokens(FAMILIES["hermes"], has_tokens=False), tools=PARTS)

    parser = parser_of(job_of(planned, {"type": "function", "name": "now"}))

    assert parser is not None
    assert [*parser.push(0, "<think>x</think>", ()), *parser.close(0)] == [Text("<think>x</think>")]


def test_a_model_with_channels_is_always_read() -> None:
    planned = plan(bound_to_tokens(FAMILIES["gpt_oss"], has_tokens=True), "<|start|>assistant")

    assert planned.parser is not None
    parser = parser_of(job_of(planned))
    assert parser is not None
    text = "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>b".replace(
        "<|", f"{MARKER_SIGN}<|"
    )
    assert joined([*parser.push(0, text, ()), *parser.close(0)]) == [Reasoning("a"), Text("b")]


def test_a_models_own_template_is_stored_with_the_job() -> None:
    template = json.dumps({"fields": {"thinking": {"open": "<a>", "close": "</a>"}, "content": {}}})
    family = family_of_template(template)
    assert family is not None

    planned = plan(bind(family, {"<a>": 3}.get, template), thinking=ON)

    parser = parser_of(job_of(planned))
    assert parser is not None
    assert joined(parser.push(0, f"{MARKER_SIGN}<a>x</a>y", ())) == [Reasoning("x"), Text("y")]


def test_a_family_of_a_newer_version_can_be_tried_again() -> None:
    with pytest.raises(ModelUnavailable):
        parser_of(header(JobKind.CHAT, context=ParserStart(name="of_tomorrow").stored))
