"""The list of embeddings, and what stands in its place while there is none."""

import base64
import sys
from array import array
from collections.abc import Iterator

from api.protocol.answer.completion_parts import asked_tier, unanswered
from api.protocol.answer.outcome import Outcome
from api.protocol.shared.envelope import outcome_error
from storage.contract import End, JobHeader
from storage.embedding_job import NUMBER_BYTES, EmbeddingResult


def embedding_object(header: JobHeader, outcome: Outcome) -> dict[str, object]:
    """OpenAI's list; without an answer it also has `status`, and `error` if the job failed."""
    is_base64 = header.request.get("encoding_format") == "base64"
    vectors = map(_base64_of, slices_of(outcome)) if is_base64 else vectors_of(outcome)
    return {
        "id": header.job_id,
        "object": "list",
        "created": header.created_at,
        "model": header.model,
        "data": [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)],
        "usage": encoder_usage(outcome.end),
        **asked_tier(header),
        **unanswered(header, outcome),
    }


def encoder_receipt(header: JobHeader, outcome: Outcome) -> dict[str, object]:
    """The body of a 202 for a job of an encoder; with `error` if it failed."""
    end = outcome.end
    status = header.status if end is None else end.status
    error = None if end is None else outcome_error(end)
    return {
        "id": header.job_id,
        "object": f"async.{header.kind.value}",
        "status": status.value,
        "created_at": header.created_at,
        "model": header.model,
        **(error or {}),
    }


def encoder_usage(end: End | None) -> dict[str, int] | None:
    """Tokens that were read, special ones included; None until they are counted."""
    if end is None or end.usage is None:
        return None
    return {"prompt_tokens": end.usage.prompt_tokens, "total_tokens": end.usage.prompt_tokens}


def slices_of(outcome: Outcome) -> Iterator[bytes]:
    """The outputs of the job in order, each as little-endian float32; none before the end."""
    result = outcome.result
    if isinstance(result, EmbeddingResult) and result.dimensions:
        width = result.dimensions * NUMBER_BYTES
        yield from (result.numbers[start : start + width] for start in range(0, len(result.numbers), width))


def vectors_of(outcome: Outcome) -> Iterator[list[float]]:
    """As `slices_of`, as numbers whose decimal digits give the same float32 again."""
    for data in slices_of(outcome):
        numbers = array("f", data)
        if sys.byteorder == "big":
            numbers.byteswap()
        yield numbers.tolist()


def _base64_of(vector: bytes) -> str:
    return base64.b64encode(vector).decode("ascii")
