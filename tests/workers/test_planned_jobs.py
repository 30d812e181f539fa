"""Jobs as the API plans them, run by a worker and read again: calls of tools in every family."""

from msgspec import structs

from api.protocol.answer.segments import CallArguments, CallClosed, CallOpened
from api.protocol.families.bound_family import bind
from api.protocol.families.family_table import FAMILIES
from api.protocol.families.grammar.output_grammar import ChoiceMode, ToolChoice, ToolPart
from api.protocol.families.stored_parser import parser_of
from api.protocol.jobs.output_plan import OutputPlan, plan_of
from storage.contract import JobKind, JobStatus
from tests.fakes import spec
from tests.protocol.examples import header
from tests.protocol.families.recorded import NOW, joined
from tests.text import tokenizers
from tests.workers.harness import Backend, running, wait_for_answer
from tests.workers.test_constrained_jobs import LowestAllowed, ids_of, letters

TOOL = ToolPart(name="now", part={"json_schema": NOW})
ONCE = ToolChoice(mode=ChoiceMode.REQUIRED, is_once=True)
REQUEST: dict[str, object] = {"tools": [{"type": "function", "function": {"name": "now"}}]}
# The calls of gpt-oss come after channels of any number, of which the lowest token always begins one more.
NAMES = [name for name in FAMILIES if name not in ("plain", "gpt_oss")]


def planned(name: str) -> OutputPlan:
    return plan_of(bind(FAMILIES[name], lambda _marker: None), "", encode=letters, tools=[TOOL], choice=ONCE)


def test_a_required_call_is_written_and_read_in_every_family(backend: Backend) -> None:
    plans = {name: planned(name) for name in NAMES}
    with running(backend, runner=LowestAllowed()) as bench:
        jobs = {name: backend.put_job(structs.replace(spec(300), output=plan.output)) for name, plan in plans.items()}
        tickets = [bench.submit(job_id) for job_id in jobs.values()]
        assert {wait_for_answer(ticket) for ticket in tickets} == {"acknowledged"}

    for name, job_id in jobs.items():
        assert backend.row(job_id).status is JobStatus.COMPLETED
        start = plans[name].parser
        assert start is not None
        parser = parser_of(header(JobKind.CHAT, request=REQUEST, context=start.stored))
        assert parser is not None
        text = tokenizers.byte_level().decode(ids_of(backend, job_id))
        segments = joined([*parser.push(0, text, ()), *parser.close(0)])
        assert segments == [CallOpened("now"), CallArguments("{}"), CallClosed()], name
