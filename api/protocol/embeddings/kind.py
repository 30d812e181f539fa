"""The job kind of Embeddings."""

from api.protocol.answer.outcome import Outcome
from api.protocol.embeddings.object import embedding_object, encoder_receipt
from api.protocol.embeddings.prepare import prepare_embedding
from api.protocol.embeddings.request import EmbeddingRequest
from api.protocol.jobs.kind_spec import KindSpec
from storage.contract import JobHeader, JobKind


def _object(header: JobHeader, outcome: Outcome, _metadata: dict[str, str] | None) -> dict[str, object]:
    return embedding_object(header, outcome)


EMBEDDING = KindSpec(
    kind=JobKind.EMBEDDING,
    path="/v1/embeddings/",
    deleted_object="embedding.deleted",
    request=EmbeddingRequest,
    capability="embedding",
    prepare=prepare_embedding,
    fold=None,
    num_choices=lambda _header: 0,
    parser=lambda _header: None,
    make_object=_object,
    make_receipt=encoder_receipt,
    is_logged=False,
    stream_refusal=lambda _header: "embeddings are not streamed",
)
