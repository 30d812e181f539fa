"""The job kinds of Rerank and Score."""

from api.protocol.embeddings.encoder_kind import encoder_kind
from api.protocol.rerank.object import rerank_object, score_object
from api.protocol.rerank.prepare import prepare_rerank, prepare_score
from api.protocol.rerank.request import RerankRequest, ScoreRequest
from storage.contract import JobKind

RERANK = encoder_kind(
    JobKind.RERANK,
    "/v1/rerank",
    request=RerankRequest,
    capability="rerank",
    prepare=prepare_rerank,
    make_object=rerank_object,
    noun="ratings",
)
SCORE = encoder_kind(
    JobKind.SCORE,
    "/v1/score",
    request=ScoreRequest,
    capability="rerank",
    prepare=prepare_score,
    make_object=score_object,
    noun="ratings",
)
