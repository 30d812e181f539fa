"""Preparing a request: prompt token ids, sampling parameters and context of the job to store and run."""

from collections.abc import Sequence

import msgspec

from api.protocol.chat.request import ChatMessage, ChatRequest
from api.protocol.completions.request import CompletionRequest
from api.protocol.prompt.tokenizing import PromptTools
from api.protocol.responses.items import PreviousResponse, messages_of_items, stored_items
from api.protocol.responses.request import ResponseRequest
from api.protocol.shared.sampling_fields import require_known_ids, sampling_of
from api.protocol.shared.tiers import priority_of
from api.protocol.shared.token_budget import fitting_prompt, output_budget
from storage.contract import JobKind, JobSpec
from storage.errors import InvalidRequest

Request = ResponseRequest | ChatRequest | CompletionRequest

# OpenAI's default output limit of Completions.
_COMPLETION_MAX_TOKENS = 16


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """A request ready to be stored as a job.

    request:  the body as sent, without nulls and the job's webhook target; JSON values
    context:  further input of the folds, JSON values: {"input_items"} of a response, {} of a chat, {"num_prompts"} of
              a completion, with `echo` also {"prompt_texts"}, with `logprobs` also {"prompt_names"}: for each prompt
              the (position, text) of tokens whose text the log lacks
    metadata: the caller's metadata
    store:    as sent, else the protocol's default
    """

    kind: JobKind
    model: str
    spec: JobSpec
    request: dict[str, object]
    context: dict[str, object]
    metadata: dict[str, str]
    store: bool
    background: bool
    stream: bool


class _Terms(msgspec.Struct, frozen=True, kw_only=True):
    """Input of `prepare` besides the request and the model."""

    seed: int
    store_default: bool | None
    is_background: bool


def prepare(
    request: Request,
    tools: PromptTools,
    *,
    previous: PreviousResponse | None = None,
    seed: int,
    store_default: bool | None = None,
    is_background: bool = False,
) -> Prepared:
    """The job to store and run for `request`.

    previous:      the turn that `previous_response_id` names, if any
    seed:          a random seed, used when the request has none
    store_default: the endpoint's default of `store`; None is the protocol's default. A job with a webhook target is
                   stored by default, because the receiver fetches it later.
    is_background: whether no caller waits for the job
    raises:        ContextLengthExceeded, InvalidRequest
    """
    has_webhook = request.webhook is not None
    terms = _Terms(seed=seed, store_default=True if has_webhook else store_default, is_background=is_background)
    match request:
        case ResponseRequest():
            return _prepare_response(request, tools, previous, terms)
        case ChatRequest():
            return _prepare_chat(request, tools, terms)
        case CompletionRequest():
            return _prepare_completion(request, tools, terms)


def count_input_tokens(
    request: ResponseRequest, tools: PromptTools, *, previous: PreviousResponse | None = None
) -> dict[str, object]:
    """The answer of `POST /v1/responses/input_tokens`: the number of prompt tokens, even above the context length."""
    items = stored_items(previous, request.messages)
    num_tokens = tools.count(_response_messages(request, messages_of_items(items)))
    return {"object": "response.input_tokens", "input_tokens": num_tokens}


def _prepare_response(
    request: ResponseRequest,
    tools: PromptTools,
    previous: PreviousResponse | None,
    terms: _Terms,
) -> Prepared:
    items = stored_items(previous, request.messages)
    messages = _response_messages(request, messages_of_items(items))
    prompt = _response_prompt(request, tools, messages)
    limit = output_budget(len(prompt), request.max_output_tokens, tools.context_length, field="input")
    return Prepared(
        kind=JobKind.RESPONSE,
        model=request.model,
        spec=_spec_of(request, tools, terms, (_not_empty(prompt, "input"),), limit),
        request=_kept(request),
        context={"input_items": items},
        metadata=request.metadata or {},
        store=_first_of(request.store, terms.store_default, True),
        background=request.background or False,
        stream=request.stream or False,
    )


def _response_messages(request: ResponseRequest, messages: list[dict[str, str]]) -> list[dict[str, str]]:
    """The messages to render: instructions first, joined with a system message that follows them.

    Many templates accept only one system message, at the beginning.
    """
    if not request.instructions:
        return messages
    instructions = request.instructions
    if messages and messages[0]["role"] == "system":
        instructions = f"{instructions}\n\n{messages[0]['content']}"
        messages = messages[1:]
    return [{"role": "system", "content": instructions}, *messages]


def _response_prompt(request: ResponseRequest, tools: PromptTools, messages: list[dict[str, str]]) -> tuple[int, ...]:
    def encode(some: Sequence[dict[str, str]]) -> tuple[int, ...]:
        return tools.encode_chat(some, field="input")

    if request.truncation == "auto":
        return fitting_prompt(messages, encode, request.max_output_tokens, tools.context_length)
    return encode(messages)


def _prepare_chat(request: ChatRequest, tools: PromptTools, terms: _Terms) -> Prepared:
    prompt = tools.encode_chat([_turn_of(message) for message in request.messages])
    limit = output_budget(len(prompt), request.output_limit, tools.context_length, field="messages")
    return Prepared(
        kind=JobKind.CHAT,
        model=request.model,
        spec=_spec_of(request, tools, terms, (_not_empty(prompt, "messages"),), limit),
        request=_kept(request),
        context={},
        metadata=request.metadata or {},
        store=_first_of(request.store, terms.store_default, False),
        background=False,
        stream=request.stream or False,
    )


def _turn_of(message: ChatMessage) -> dict[str, str]:
    turn = {"role": message.role, "content": message.text}
    return turn if message.name is None else {**turn, "name": message.name}


def _prepare_completion(request: CompletionRequest, tools: PromptTools, terms: _Terms) -> Prepared:
    limit = _COMPLETION_MAX_TOKENS if request.max_tokens is None else request.max_tokens
    prompts = tuple(_prompt_ids(prompt, tools) for prompt in request.prompts)
    for prompt in prompts:
        output_budget(len(prompt), limit, tools.context_length, field="prompt")
    return Prepared(
        kind=JobKind.COMPLETION,
        model=request.model,
        spec=_spec_of(request, tools, terms, prompts, limit),
        request=_kept(request),
        context=_completion_context(request, tools, prompts),
        metadata=request.metadata or {},
        store=_first_of(request.store, terms.store_default, False),
        background=False,
        stream=request.stream or False,
    )


def _completion_context(
    request: CompletionRequest, tools: PromptTools, prompts: tuple[tuple[int, ...], ...]
) -> dict[str, object]:
    context: dict[str, object] = {"num_prompts": len(prompts)}
    if request.echo:
        context["prompt_texts"] = [_prompt_text(prompt, tools) for prompt in request.prompts]
        if request.num_prompt_logprobs is not None:
            context["prompt_names"] = [list(map(list, tools.names_of(prompt))) for prompt in prompts]
    return context


def _prompt_ids(prompt: str | list[int], tools: PromptTools) -> tuple[int, ...]:
    if isinstance(prompt, str):
        return _not_empty(tools.encode_prompt(prompt), "prompt")
    require_known_ids(prompt, tools.vocab_size, field="prompt")
    return tuple(prompt)


def _prompt_text(prompt: str | list[int], tools: PromptTools) -> str:
    return prompt if isinstance(prompt, str) else tools.decode(prompt)


def _not_empty(prompt: tuple[int, ...], field: str) -> tuple[int, ...]:
    if not prompt:
        raise InvalidRequest(f"Invalid '{field}': it contains no tokens.", param=field)
    return prompt


def _spec_of(
    request: Request, tools: PromptTools, terms: _Terms, prompts: tuple[tuple[int, ...], ...], max_tokens: int
) -> JobSpec:
    return JobSpec(
        prompts=prompts,
        sampling=sampling_of(request, max_tokens=max_tokens, seed=terms.seed, vocab_size=tools.vocab_size),
        num_choices=_num_choices(request),
        priority=priority_of(request, is_background=terms.is_background),
    )


def _num_choices(request: Request) -> int:
    match request:
        case ResponseRequest():
            return 1
        case ChatRequest():
            return request.n or 1
        case CompletionRequest():
            return request.num_generated


def _kept(request: Request) -> dict[str, object]:
    """The request body to store. The webhook target has a column of its own, since it may hold a secret."""
    if request.webhook is None:
        return request.sent
    return {name: value for name, value in request.sent.items() if name != "webhook"}


def _first_of(*values: bool | None) -> bool:
    """The first value that is not None; the last one never is."""
    return next(value for value in values if value is not None)
