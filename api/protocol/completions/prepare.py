"""Preparing a completion job: one prompt or several, as text or token ids."""

from api.protocol.completions.request import CompletionRequest
from api.protocol.jobs.output_plan import plan_format
from api.protocol.jobs.prepared import Prepared, Terms, not_empty, prepared, spec_of
from api.protocol.prompt.token_budget import output_budget
from api.protocol.prompt.tokenizing import PromptTools
from api.protocol.shared.sampling_fields import require_known_ids
from api.protocol.structured.format_fields import answer_part
from storage.contract import JobKind

# OpenAI's default output limit of Completions.
_MAX_TOKENS = 16


def prepare_completion(request: CompletionRequest, tools: PromptTools, terms: Terms) -> Prepared:
    """The job of `POST /v1/completions`.

    Its context is {"num_prompts"}, with `echo` also {"prompt_texts"}, with `logprobs` also {"prompt_names"}: for each
    prompt the (position, text) of tokens whose text the log lacks.

    raises: ContextLengthExceeded, InvalidRequest
    """
    limit = _MAX_TOKENS if request.max_tokens is None else request.max_tokens
    prompts = tuple(_prompt_ids(prompt, request, tools) for prompt in request.prompts)
    for prompt in prompts:
        output_budget(len(prompt), limit, tools.context_length, field="prompt")
    return prepared(
        request,
        JobKind.COMPLETION,
        terms,
        spec_of(
            request,
            tools,
            terms,
            prompts,
            max_tokens=limit,
            num_choices=request.num_generated,
            output=plan_format(answer_part(request, terms.judged)),
        ),
        context=_context_of(request, tools, prompts),
        store_default=False,
    )


def _context_of(
    request: CompletionRequest, tools: PromptTools, prompts: tuple[tuple[int, ...], ...]
) -> dict[str, object]:
    context: dict[str, object] = {"num_prompts": len(prompts)}
    if request.echo:
        context["prompt_texts"] = [_prompt_text(prompt, tools) for prompt in request.prompts]
        if request.num_prompt_logprobs is not None:
            context["prompt_names"] = [list(map(list, tools.names_of(prompt))) for prompt in prompts]
    return context


def _prompt_ids(prompt: str | list[int], request: CompletionRequest, tools: PromptTools) -> tuple[int, ...]:
    if isinstance(prompt, str):
        ids = tools.encode_prompt(
            prompt,
            add_special_tokens=request.add_special_tokens is not False,
            allow_special_tokens=request.allow_special_tokens or False,
        )
        return not_empty(ids, "prompt")
    require_known_ids(prompt, tools.vocab_size, field="prompt")
    return tuple(prompt)


def _prompt_text(prompt: str | list[int], tools: PromptTools) -> str:
    return prompt if isinstance(prompt, str) else tools.decode(prompt)
