"""Preparing an embedding job: texts as token ids, prompts before them, and how much of each vector is wanted."""

from collections.abc import Sequence
from typing import Literal, cast

from api.protocol.embeddings.embedding_inputs import checked, encoded, limit_of
from api.protocol.embeddings.request import EmbeddingRequest
from api.protocol.embeddings.text_inputs import TextInput
from api.protocol.jobs.prepared import Prepared, Terms, prepared
from api.protocol.prompt.tokenizing import PromptTools
from api.protocol.shared.tiers import priority_of
from storage.contract import JobKind
from storage.embedding_job import EmbeddingSpec
from storage.errors import InvalidRequest
from storage.model_manifest import EmbeddingAbilities

# The names that models give their prompts, by `input_type`; the first that a model has.
_PROMPT_NAMES = {"query": ("query", "search_query"), "document": ("document", "passage", "search_document", "corpus")}


def prepare_embedding(request: EmbeddingRequest, tools: PromptTools, terms: Terms) -> Prepared:
    """The job of `POST /v1/embeddings`. Its context is empty.

    raises: ContextLengthExceeded, InvalidRequest
    """
    abilities = tools.embedding
    assert abilities is not None, "the kind's capability was checked"
    inputs = _inputs_of(request, tools, prompt_of(request.input_type, abilities))
    return prepared(
        request,
        JobKind.EMBEDDING,
        terms,
        EmbeddingSpec(
            inputs=tuple(one.token_ids for one in inputs),
            dimensions=_dimensions_of(request, abilities, tools.model),
            is_normalized=request.normalize,
            priority=priority_of(request, is_background=terms.is_background),
        ),
        context={},
        store_default=False,
    )


def _inputs_of(request: EmbeddingRequest, tools: PromptTools, prompt: str) -> list[TextInput]:
    inputs, fields = request.inputs, request.fields
    if isinstance(inputs[0], str):
        texts = [prompt + text for text in cast(Sequence[str], inputs)]
        return encoded(tools, texts, truncate_prompt_tokens=request.truncate_prompt_tokens, fields=fields)
    if prompt and request.input_type is not None:
        raise InvalidRequest(
            "Invalid 'input_type': token ids are taken as they are, without the model's prompt. Send texts, or put the "
            "prompt's ids before them.",
            param="input_type",
        )
    limit = limit_of(request.truncate_prompt_tokens, tools)
    return checked(
        [TextInput(token_ids=tuple(ids[:limit])) for ids in cast(Sequence[list[int]], inputs)], tools, fields=fields
    )


def prompt_of(input_type: Literal["query", "document"] | None, abilities: EmbeddingAbilities) -> str:
    """The model's text before an input of this type, empty where the model does not tell types apart."""
    if input_type is None:
        return abilities.default_prompt
    names = _PROMPT_NAMES[input_type]
    return next((abilities.prompts[name] for name in names if name in abilities.prompts), "")


def _dimensions_of(request: EmbeddingRequest, abilities: EmbeddingAbilities, model: str) -> int | None:
    """The numbers that are kept of each vector; None for all."""
    wanted, whole = request.dimensions, abilities.dimensions
    if wanted is None or wanted == whole:
        return None
    if wanted in abilities.allowed_dimensions:
        return wanted
    allowed = ", ".join(map(str, (*abilities.allowed_dimensions, whole)))
    raise InvalidRequest(
        f"Invalid 'dimensions': vectors of the model '{model}' may have {allowed} numbers.", param="dimensions"
    )
