"""Preparing a response job: the conversation's prompt, and its items in the context."""

from collections.abc import Sequence

from msgspec import structs

from api.protocol.jobs.planned_output import planned_output
from api.protocol.jobs.prepared import Prepared, Terms, not_empty, prepared, spec_of
from api.protocol.prompt.system_turn import Message, with_one_beginning
from api.protocol.prompt.token_budget import fitting_prompt, output_budget
from api.protocol.prompt.tokenizing import PromptTools
from api.protocol.responses.conversation_history import ConversationHistory
from api.protocol.responses.item_history import Item, messages_of_items, without_old_thoughts
from api.protocol.responses.object import THOUGHT_KEY
from api.protocol.responses.request import ResponseRequest
from api.protocol.responses.stored_items import PreviousResponse, context_of, echoed_defaults, items_of_context
from api.protocol.responses.tool_echo import strictness_of
from api.protocol.thinking.thinking_choice import thinking_choice
from storage.contract import JobKind
from storage.errors import InvalidRequest

# What a request goes on with.
Previous = PreviousResponse | ConversationHistory


def prepare_response(request: ResponseRequest, tools: PromptTools, terms: Terms) -> Prepared:
    """The job of `POST /v1/responses`; its context is {"input_items"}, with "previous_output" where it continues one,
    "generation_defaults" where the model has some, and what the folds need of tools, the segment parser and signed
    thoughts.

    The stored request has no `input`: the items are it.

    raises: ContextLengthExceeded, InvalidRequest, MissingToolOutput, UnknownCallId, InvalidToolChoice,
            ToolsNotSupported
    """
    previous = terms.previous
    assert previous is None or isinstance(previous, PreviousResponse | ConversationHistory)
    context = _context(request, previous, terms.thought_key)
    items = _conversation(request, previous, context)
    if not items:
        raise InvalidRequest("Invalid 'input': the conversation holds nothing to respond to.", param="input")
    thinking = thinking_choice(request.thinking, tools.thinking)
    tools = tools.with_arguments(thinking.arguments)
    prompt = not_empty(_prompt_of(request, tools, _messages(request, messages_of_items(items))), "input")
    limit = output_budget(len(prompt), request.max_output_tokens, tools.context_length, field="input")
    planned = planned_output(request, tools, terms, prompt, thinking)
    further = echoed_defaults(tools.generation_defaults) | planned.plan.context | _signing(request, terms)
    job = prepared(
        request,
        JobKind.RESPONSE,
        terms,
        spec_of(request, tools, terms, (prompt,), max_tokens=limit, output=planned.plan.output),
        context=context | further | strictness_of(request.tool_set.tools, planned.unenforced),
        store_default=True,
        background=request.background or False,
        unenforced=planned.keywords,
    )
    return structs.replace(job, request={name: value for name, value in job.request.items() if name != "input"})


def count_input_tokens(
    request: ResponseRequest,
    tools: PromptTools,
    *,
    previous: Previous | None = None,
    thought_key: str | None = None,
) -> dict[str, object]:
    """The answer of `POST /v1/responses/input_tokens`: the number of prompt tokens, even above the context length."""
    items = _conversation(request, previous, _context(request, previous, thought_key))
    tools = tools.with_arguments(thinking_choice(request.thinking, tools.thinking).arguments)
    messages = with_one_beginning(_messages(request, messages_of_items(items)))
    num_tokens = tools.count(messages, tools=request.tool_set.declaration(tools.family.family))
    return {"object": "response.input_tokens", "input_tokens": num_tokens}


def _signing(request: ResponseRequest, terms: Terms) -> dict[str, object]:
    """The key with which the answer's thoughts are signed, if they are. The folds must need no secret of a process."""
    if not request.signs_thoughts:
        return {}
    if terms.thought_key is None:
        raise InvalidRequest("This server has no secret that signs encrypted content.", param="include")
    return {THOUGHT_KEY: terms.thought_key}


def _context(request: ResponseRequest, previous: Previous | None, thought_key: str | None) -> dict[str, object]:
    """As `context_of`; of a conversation, whose items are stored in it, the turn's own input alone."""
    parent = previous if isinstance(previous, PreviousResponse) else None
    return context_of(parent, request.input, thought_key=thought_key)


def _conversation(request: ResponseRequest, previous: Previous | None, context: dict[str, object]) -> Sequence[Item]:
    """The conversation so far, then the new input.

    context: that of the new turn, see `context_of`
    """
    history: Sequence[Item] = ()
    if previous is not None:
        history = previous.items if isinstance(previous, ConversationHistory) else previous.input_items
    items = [*history, *items_of_context(context)]
    is_current = request.reasoning is not None and request.reasoning.context == "current_turn"
    return without_old_thoughts(items) if is_current else items


def _messages(request: ResponseRequest, messages: Sequence[Message]) -> Sequence[Message]:
    """The messages of the prompt: instructions first."""
    return [{"role": "system", "content": request.instructions}, *messages] if request.instructions else messages


def _prompt_of(request: ResponseRequest, tools: PromptTools, messages: Sequence[Message]) -> tuple[int, ...]:
    declared = request.tool_set.declaration(tools.family.family)

    def encode(some: Sequence[Message]) -> tuple[int, ...]:
        # Many templates accept only one system message, at the beginning.
        return tools.encode_chat(with_one_beginning(some), tools=declared, field="input")

    if request.is_truncated:
        return fitting_prompt(messages, encode, request.max_output_tokens, tools.context_length)
    return encode(messages)
