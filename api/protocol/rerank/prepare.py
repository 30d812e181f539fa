"""Preparing jobs that rate texts: pairs for a cross-encoder, or texts whose vectors are compared for a bi-encoder."""

from collections.abc import Sequence

from api.protocol.embeddings.embedding_inputs import encoded
from api.protocol.embeddings.prepare import prompt_of
from api.protocol.jobs.prepared import Prepared, Terms, prepared
from api.protocol.prompt.tokenizing import PromptTools
from api.protocol.rerank.request import RerankRequest, ScoreRequest
from api.protocol.shared.encoder_request import EncoderRequest
from api.protocol.shared.tiers import priority_of
from storage.contract import JobKind
from storage.embedding_job import EmbeddingSpec
from storage.model_manifest import EmbeddingAbilities


def prepare_rerank(request: RerankRequest, tools: PromptTools, terms: Terms) -> Prepared:
    """The job of `POST /v1/rerank`. Its context is empty.

    raises: ContextLengthExceeded, InvalidRequest
    """
    abilities, fields = _abilities_of(tools), _fields_of("documents", request.documents)
    if _reads_pairs(abilities):
        pairs = [(request.query, document) for document in request.documents]
        spec = _pairs(request, tools, terms, pairs, fields)
    else:
        query, document = prompt_of("query", abilities), prompt_of("document", abilities)
        texts = [query + request.query, *(document + text for text in request.documents)]
        numbers = tuple((0, 1 + index) for index in range(len(request.documents)))
        spec = _compared(request, tools, terms, texts, ["query", *fields], numbers)
    return prepared(request, JobKind.RERANK, terms, spec, context={}, store_default=False)


def prepare_score(request: ScoreRequest, tools: PromptTools, terms: Terms) -> Prepared:
    """The job of `POST /v1/score`. Its context is empty.

    raises: ContextLengthExceeded, InvalidRequest
    """
    abilities, first, second = _abilities_of(tools), request.first_texts, request.second_texts
    fields = _fields_of("text_2", request.text_2)
    # One text stands for as many as there are on the other side.
    of_first = [min(index, len(first) - 1) for index in range(len(second))]
    if _reads_pairs(abilities):
        pairs = [(first[index], text) for index, text in zip(of_first, second, strict=True)]
        spec = _pairs(request, tools, terms, pairs, fields)
    else:
        texts = [abilities.default_prompt + text for text in (*first, *second)]
        numbers = tuple((index, len(first) + number) for number, index in enumerate(of_first))
        spec = _compared(request, tools, terms, texts, [*_fields_of("text_1", request.text_1), *fields], numbers)
    return prepared(request, JobKind.SCORE, terms, spec, context={}, store_default=False)


def _pairs(
    request: EncoderRequest, tools: PromptTools, terms: Terms, pairs: Sequence[tuple[str, str]], fields: Sequence[str]
) -> EmbeddingSpec:
    inputs = encoded(tools, pairs, truncate_prompt_tokens=request.truncate_prompt_tokens, fields=fields)
    return EmbeddingSpec(
        inputs=tuple(one.token_ids for one in inputs),
        second_starts=tuple(len(one.token_ids) if one.second_start is None else one.second_start for one in inputs),
        priority=priority_of(request, is_background=terms.is_background),
    )


def _compared(
    request: EncoderRequest,
    tools: PromptTools,
    terms: Terms,
    texts: Sequence[str],
    fields: Sequence[str],
    pairs: tuple[tuple[int, int], ...],
) -> EmbeddingSpec:
    inputs = encoded(tools, texts, truncate_prompt_tokens=request.truncate_prompt_tokens, fields=fields)
    return EmbeddingSpec(
        inputs=tuple(one.token_ids for one in inputs),
        pairs=pairs,
        priority=priority_of(request, is_background=terms.is_background),
    )


def _abilities_of(tools: PromptTools) -> EmbeddingAbilities:
    assert tools.embedding is not None, "the kind's capability was checked"
    return tools.embedding


def _reads_pairs(abilities: EmbeddingAbilities) -> bool:
    """Whether the model is a cross-encoder, which makes no vectors."""
    return abilities.dimensions is None


def _fields_of(name: str, value: str | Sequence[str]) -> list[str]:
    """The request field of each text."""
    return [name] if isinstance(value, str) else [f"{name}[{index}]" for index in range(len(value))]
