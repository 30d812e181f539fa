"""The job kind of Embeddings."""

from api.protocol.embeddings.encoder_kind import encoder_kind
from api.protocol.embeddings.object import embedding_object
from api.protocol.embeddings.prepare import prepare_embedding
from api.protocol.embeddings.request import EmbeddingRequest
from storage.contract import JobKind

EMBEDDING = encoder_kind(
    JobKind.EMBEDDING,
    "/v1/embeddings",
    request=EmbeddingRequest,
    capability="embedding",
    prepare=prepare_embedding,
    make_object=embedding_object,
    noun="embeddings",
)
