"""Response models of embeddings and ratings for the OpenAPI schema."""

from typing import Literal

from pydantic import BaseModel, Field

from api.interface.answer_models import ErrorDetails, JobStatusName, QueueStatusObject


class EncoderUsage(BaseModel):
    """Tokens that were read, special ones included."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingObject(BaseModel):
    """The vector of one input."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str = Field(description="numbers, or the base64 of little-endian float32")


class EmbeddingList(BaseModel):
    """The vectors of all inputs in their order; `status` is there while there are none, `error` when the job failed."""

    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[EmbeddingObject]
    usage: EncoderUsage | None
    service_tier: str | None = None
    status: JobStatusName | None = None
    error: ErrorDetails | None = None
    tokenpost_queue: QueueStatusObject | None = None


class RankedText(BaseModel):
    """The text of a document."""

    text: str


class RankedDocument(BaseModel):
    """A document and how relevant it is; `document` is left out with `return_documents: false`."""

    index: int
    relevance_score: float
    document: RankedText | None = None


class RerankList(BaseModel):
    """Documents, the most relevant first; `status` and `error` as in embeddings."""

    id: str
    object: Literal["list"]
    created: int
    model: str
    results: list[RankedDocument]
    usage: EncoderUsage | None
    service_tier: str | None = None
    status: JobStatusName | None = None
    error: ErrorDetails | None = None
    tokenpost_queue: QueueStatusObject | None = None


class ScoreObject(BaseModel):
    """The score of one pair."""

    object: Literal["score"]
    index: int
    score: float


class ScoreList(BaseModel):
    """Scores in the order of the pairs; `status` and `error` as in embeddings."""

    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[ScoreObject]
    usage: EncoderUsage | None
    service_tier: str | None = None
    status: JobStatusName | None = None
    error: ErrorDetails | None = None
    tokenpost_queue: QueueStatusObject | None = None


class AsyncEncoderObject(BaseModel):
    """A job of an encoder without an answer, or a receipt."""

    id: str
    object: Literal["async.embedding", "async.rerank", "async.score"]
    status: JobStatusName
    created_at: int
    model: str
    error: ErrorDetails | None = None
    tokenpost_queue: QueueStatusObject | None = None
