"""Preparing a chat completion job."""

from api.protocol.chat.chat_history import messages_of_chat
from api.protocol.chat.request import ChatRequest
from api.protocol.jobs.planned_output import planned_output
from api.protocol.jobs.prepared import Prepared, Terms, not_empty, prepared, spec_of
from api.protocol.prompt.token_budget import output_budget
from api.protocol.prompt.tokenizing import PromptTools
from api.protocol.thinking.thinking_choice import thinking_choice
from storage.contract import JobKind


def prepare_chat(request: ChatRequest, tools: PromptTools, terms: Terms) -> Prepared:
    """The job of `POST /v1/chat/completions`; its context holds the segment parser, where the output has one.

    raises: ContextLengthExceeded, InvalidRequest, MissingToolOutput, UnknownCallId, InvalidToolChoice,
            ToolsNotSupported
    """
    thinking = thinking_choice(request.thinking, tools.thinking)
    tools = tools.with_arguments(thinking.arguments)
    declared = request.tool_set.declaration(tools.family.family)
    prompt = not_empty(tools.encode_chat(messages_of_chat(request.messages), tools=declared), "messages")
    limit = output_budget(len(prompt), request.output_limit, tools.context_length, field="messages")
    planned = planned_output(request, tools, terms, prompt, thinking)
    plan = planned.plan
    spec = spec_of(request, tools, terms, (prompt,), max_tokens=limit, num_choices=request.n or 1, output=plan.output)
    return prepared(
        request, JobKind.CHAT, terms, spec, context=plan.context, store_default=False, unenforced=planned.keywords
    )
