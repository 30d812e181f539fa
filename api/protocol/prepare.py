"""From an accepted request to what is stored and run: prompt token ids, sampling parameters, context."""

from collections.abc import Sequence

import msgspec

from api.protocol.budget import fitting_prompt, output_budget
from api.protocol.chat import ChatMessage, ChatRequest
from api.protocol.completions import CompletionRequest
from api.protocol.items import PreviousResponse, messages_of_items, stored_items
from api.protocol.prompt import PromptTools
from api.protocol.responses import ResponseRequest
from storage.contract import JobKind, JobSpec, SamplingParams
from storage.errors import InvalidRequest

Request = ResponseRequest | ChatRequest | CompletionRequest

# OpenAI's default output limit of completions, from the days before chat.
_COMPLETION_MAX_TOKENS = 16
# A nucleus of no mass still holds the likeliest token.
_MIN_TOP_P = 1e-6


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """A request ready to be stored as a job.

    request:  the body as sent, without nulls; JSON values
    context:  what the folds need besides, JSON values: {"input_items"} of a response, {"num_prompts"[, "prompt_texts"]}
              of a completion, {} of a chat
    metadata: the caller's own pairs
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


def prepare(
    request: Request,
    tools: PromptTools,
    *,
    previous: PreviousResponse | None = None,
    seed: int,
    store_default: bool | None = None,
) -> Prepared:
    """What to store and run for `request`.

    previous:      the turn that `previous_response_id` names, if it names one
    seed:          drawn by the caller; the request's own wins
    store_default: what an absent `store` means, where the path has its own mind; None is the protocol's
    raises:        ContextLengthExceeded, InvalidRequest
    """
    match request:
        case ResponseRequest():
            return _prepare_response(request, tools, previous, seed, store_default)
        case ChatRequest():
            return _prepare_chat(request, tools, seed, store_default)
        case CompletionRequest():
            return _prepare_completion(request, tools, seed, store_default)


def count_input_tokens(
    request: ResponseRequest, tools: PromptTools, *, previous: PreviousResponse | None = None
) -> dict[str, object]:
    """The answer of `POST /v1/responses/input_tokens`: tokens of the whole prompt, fitting or not."""
    items = stored_items(previous, request.messages)
    num_tokens = tools.count(_response_messages(request, messages_of_items(items)))
    return {"object": "response.input_tokens", "input_tokens": num_tokens}


def _prepare_response(
    request: ResponseRequest,
    tools: PromptTools,
    previous: PreviousResponse | None,
    seed: int,
    store_default: bool | None,
) -> Prepared:
    items = stored_items(previous, request.messages)
    messages = _response_messages(request, messages_of_items(items))
    prompt = _response_prompt(request, tools, messages)
    limit = output_budget(len(prompt), request.max_output_tokens, tools.context_length, field="input")
    return Prepared(
        kind=JobKind.RESPONSE,
        model=request.model,
        spec=JobSpec(prompts=(_not_empty(prompt, "input"),), sampling=_sampling_of(request, limit, seed)),
        request=request.sent,
        context={"input_items": items},
        metadata=request.metadata or {},
        store=_first_of(request.store, store_default, True),
        background=request.background or False,
        stream=request.stream or False,
    )


def _response_messages(request: ResponseRequest, messages: list[dict[str, str]]) -> list[dict[str, str]]:
    """The chat to render: instructions first, joined with the system message they precede.

    Many templates know one system message only, at the very beginning.
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


def _prepare_chat(request: ChatRequest, tools: PromptTools, seed: int, store_default: bool | None) -> Prepared:
    prompt = tools.encode_chat([_turn_of(message) for message in request.messages])
    limit = output_budget(len(prompt), request.output_limit, tools.context_length, field="messages")
    return Prepared(
        kind=JobKind.CHAT,
        model=request.model,
        spec=JobSpec(
            prompts=(_not_empty(prompt, "messages"),),
            sampling=_sampling_of(request, limit, seed),
            num_choices=request.n or 1,
        ),
        request=request.sent,
        context={},
        metadata=request.metadata or {},
        store=_first_of(request.store, store_default, False),
        background=False,
        stream=request.stream or False,
    )


def _turn_of(message: ChatMessage) -> dict[str, str]:
    turn = {"role": message.role, "content": message.text}
    return turn if message.name is None else {**turn, "name": message.name}


def _prepare_completion(
    request: CompletionRequest, tools: PromptTools, seed: int, store_default: bool | None
) -> Prepared:
    limit = request.max_tokens or _COMPLETION_MAX_TOKENS
    prompts = tuple(_prompt_ids(prompt, tools) for prompt in request.prompts)
    for prompt in prompts:
        output_budget(len(prompt), limit, tools.context_length, field="prompt")
    context: dict[str, object] = {"num_prompts": len(prompts)}
    if request.echo:
        context["prompt_texts"] = [_prompt_text(prompt, tools) for prompt in request.prompts]
    return Prepared(
        kind=JobKind.COMPLETION,
        model=request.model,
        spec=JobSpec(prompts=prompts, sampling=_sampling_of(request, limit, seed), num_choices=request.n or 1),
        request=request.sent,
        context=context,
        metadata=request.metadata or {},
        store=_first_of(request.store, store_default, False),
        background=False,
        stream=request.stream or False,
    )


def _prompt_ids(prompt: str | list[int], tools: PromptTools) -> tuple[int, ...]:
    if isinstance(prompt, str):
        return _not_empty(tools.encode_prompt(prompt), "prompt")
    if max(prompt) >= tools.vocab_size:
        raise InvalidRequest(f"Invalid 'prompt': token ids must be below {tools.vocab_size}.", param="prompt")
    return tuple(prompt)


def _prompt_text(prompt: str | list[int], tools: PromptTools) -> str:
    return prompt if isinstance(prompt, str) else tools.decode(prompt)


def _not_empty(prompt: tuple[int, ...], field: str) -> tuple[int, ...]:
    if not prompt:
        raise InvalidRequest(f"Invalid '{field}': it holds no tokens, so there is nothing to go on from.", param=field)
    return prompt


def _sampling_of(request: Request, max_tokens: int, seed: int) -> SamplingParams:
    return SamplingParams(
        max_tokens=max_tokens,
        temperature=1.0 if request.temperature is None else float(request.temperature),
        top_p=1.0 if request.top_p is None else max(_MIN_TOP_P, request.top_p),
        top_k=request.top_k or 0,
        seed=seed if request.seed is None else request.seed,
        stop=tuple(request.stop or ()),
    )


def _first_of(*claims: bool | None) -> bool:
    """The first claim that was made; the last always is."""
    return next(claim for claim in claims if claim is not None)
