"""Preparing a response job: the conversation's prompt, and its items in the context."""

from collections.abc import Sequence

from msgspec import structs

from api.protocol.jobs.prepared import Prepared, Terms, not_empty, prepared, spec_of
from api.protocol.prompt.system_turn import Message, with_one_beginning
from api.protocol.prompt.token_budget import fitting_prompt, output_budget
from api.protocol.prompt.tokenizing import PromptTools
from api.protocol.responses.item_history import Item, messages_of_items
from api.protocol.responses.request import ResponseRequest
from api.protocol.responses.stored_items import PreviousResponse, context_of, echoed_defaults, items_of_context
from storage.contract import JobKind


def prepare_response(request: ResponseRequest, tools: PromptTools, terms: Terms) -> Prepared:
    """The job of `POST /v1/responses`; its context is {"input_items"}, with "previous_output" where it continues one,
    and "generation_defaults" where the model has some.

    The stored request has no `input`: the items are it.

    raises: ContextLengthExceeded, InvalidRequest, MissingToolOutput, UnknownCallId
    """
    assert terms.previous is None or isinstance(terms.previous, PreviousResponse)
    context = context_of(terms.previous, request.input)
    items = _conversation(terms.previous, context)
    prompt = not_empty(_prompt_of(request, tools, _messages(request, messages_of_items(items))), "input")
    limit = output_budget(len(prompt), request.max_output_tokens, tools.context_length, field="input")
    job = prepared(
        request,
        JobKind.RESPONSE,
        terms,
        spec_of(request, tools, terms, (prompt,), max_tokens=limit),
        context=context | echoed_defaults(tools.generation_defaults),
        store_default=True,
        background=request.background or False,
    )
    return structs.replace(job, request={name: value for name, value in job.request.items() if name != "input"})


def count_input_tokens(
    request: ResponseRequest, tools: PromptTools, *, previous: PreviousResponse | None = None
) -> dict[str, object]:
    """The answer of `POST /v1/responses/input_tokens`: the number of prompt tokens, even above the context length."""
    items = _conversation(previous, context_of(previous, request.input))
    num_tokens = tools.count(with_one_beginning(_messages(request, messages_of_items(items))))
    return {"object": "response.input_tokens", "input_tokens": num_tokens}


def _conversation(previous: PreviousResponse | None, context: dict[str, object]) -> list[Item]:
    """The conversation so far, then the new input.

    context: that of the new turn, see `context_of`
    """
    history = [] if previous is None else previous.input_items
    return [*history, *items_of_context(context)]


def _messages(request: ResponseRequest, messages: Sequence[Message]) -> Sequence[Message]:
    """The messages of the prompt: instructions first."""
    return [{"role": "system", "content": request.instructions}, *messages] if request.instructions else messages


def _prompt_of(request: ResponseRequest, tools: PromptTools, messages: Sequence[Message]) -> tuple[int, ...]:
    def encode(some: Sequence[Message]) -> tuple[int, ...]:
        # Many templates accept only one system message, at the beginning.
        return tools.encode_chat(with_one_beginning(some), field="input")

    if request.is_truncated:
        return fitting_prompt(messages, encode, request.max_output_tokens, tools.context_length)
    return encode(messages)
