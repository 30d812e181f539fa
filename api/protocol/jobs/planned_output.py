"""The planned output of a request: tools, the format of its answer and thinking, as a plan for worker and parser."""

from collections.abc import Mapping, Sequence

import msgspec

from api.protocol.jobs.output_plan import OutputPlan, plan_output
from api.protocol.jobs.prepared import Terms
from api.protocol.prompt.tokenizing import PromptTools
from api.protocol.structured.format_fields import answer_part
from api.protocol.thinking.thinking_choice import ThinkingChoice
from api.protocol.tools.tool_requests import ToolRequest
from api.protocol.tools.tool_set import NO_TOOL_SET
from storage.errors import ToolsNotSupported


class PlannedOutput(msgspec.Struct, frozen=True, kw_only=True):
    """The plan, and what it does not enforce.

    unenforced: keywords by the `param` of their function
    """

    plan: OutputPlan
    unenforced: Mapping[str, tuple[str, ...]] = {}

    @property
    def keywords(self) -> tuple[str, ...]:
        """All keywords that are not enforced."""
        if not self.unenforced:
            return ()
        return tuple(name for names in self.unenforced.values() for name in names)


def planned_output(
    request: ToolRequest, model: PromptTools, terms: Terms, prompt: Sequence[int], thinking: ThinkingChoice
) -> PlannedOutput:
    """The planned output of a job with this prompt.

    raises: ToolsNotSupported, InvalidFunctionParameters for what the form of the model's calls does not enforce
    """
    tools, body = request.tool_set, answer_part(request, terms.judged)
    if tools is NO_TOOL_SET:
        return PlannedOutput(plan=plan_output(model, prompt, body=body, thinking=thinking))
    form = model.family.family.calls
    if tools.tools and form is None:
        raise ToolsNotSupported(f"The model '{model.model}' writes no tool calls.", param="tools")
    unenforced = tools.unenforced(terms.judged, form)
    parts = tools.parts(terms.judged)
    plan = plan_output(model, prompt, tools=parts, choice=tools.choice, body=body, thinking=thinking)
    return PlannedOutput(plan=plan, unenforced=unenforced)
