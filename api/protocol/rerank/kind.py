"""The job kinds of Rerank and Score."""

from api.protocol.embeddings.object import encoder_receipt
from api.protocol.jobs.kind_spec import KindSpec
from api.protocol.rerank.object import rerank_object, score_object
from api.protocol.rerank.prepare import prepare_rerank, prepare_score
from api.protocol.rerank.request import RerankRequest, ScoreRequest
from storage.contract import JobKind

RERANK = KindSpec(
    kind=JobKind.RERANK,
    path="/v1/rerank/",
    deleted_object="rerank.deleted",
    request=RerankRequest,
    capability="rerank",
    prepare=prepare_rerank,
    fold=None,
    num_choices=lambda _header: 0,
    parser=lambda _header: None,
    make_object=lambda header, outcome, _metadata: rerank_object(header, outcome),
    make_receipt=encoder_receipt,
    is_logged=False,
    stream_refusal=lambda _header: "ratings are not streamed",
)
SCORE = KindSpec(
    kind=JobKind.SCORE,
    path="/v1/score/",
    deleted_object="score.deleted",
    request=ScoreRequest,
    capability="rerank",
    prepare=prepare_score,
    fold=None,
    num_choices=lambda _header: 0,
    parser=lambda _header: None,
    make_object=lambda header, outcome, _metadata: score_object(header, outcome),
    make_receipt=encoder_receipt,
    is_logged=False,
    stream_refusal=lambda _header: "ratings are not streamed",
)
