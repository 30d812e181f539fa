"""Rated texts as Rerank and Score show them."""

from typing import cast

from api.protocol.answer.completion_parts import asked_tier, unanswered
from api.protocol.answer.outcome import Outcome
from api.protocol.embeddings.object import encoder_usage, vectors_of
from storage.contract import JobHeader


def rerank_object(header: JobHeader, outcome: Outcome) -> dict[str, object]:
    """The documents, best first; without an answer it also has `status`, and `error` if the job failed."""
    rated = sorted(enumerate(_scores_of(outcome)), key=lambda one: (-one[1], one[0]))
    documents = cast(list[str], header.request["documents"])
    has_documents = header.request.get("return_documents", True)
    results = [
        {
            "index": index,
            "relevance_score": score,
            **({"document": {"text": documents[index]}} if has_documents else {}),
        }
        for index, score in rated[: cast(int | None, header.request.get("top_n"))]
    ]
    return _list(header, outcome, "results", results)


def score_object(header: JobHeader, outcome: Outcome) -> dict[str, object]:
    """The scores in the order of the pairs; otherwise as `rerank_object`."""
    data = [{"index": index, "object": "score", "score": score} for index, score in enumerate(_scores_of(outcome))]
    return _list(header, outcome, "data", data)


def _scores_of(outcome: Outcome) -> list[float]:
    return [score for (score,) in vectors_of(outcome)]


def _list(header: JobHeader, outcome: Outcome, name: str, rated: list[dict[str, object]]) -> dict[str, object]:
    return {
        "id": header.job_id,
        "object": "list",
        "created": header.created_at,
        "model": header.model,
        name: rated,
        "usage": encoder_usage(outcome.end),
        **asked_tier(header),
        **unanswered(header, outcome),
    }
