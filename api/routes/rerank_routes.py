"""`/v1/rerank` and `/v1/score`."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.dependencies import Query, caller_of, no_query, parse_body
from api.jobs.create_request import create_request_of
from api.jobs.job_services import jobs_of
from api.jobs.replies import erased_reply
from api.lean_route import LeanRoute
from api.protocol.rerank.request import RerankRequest, ScoreRequest
from api.routes.job_routes import create_job, read_job
from storage.contract import JobKind

router = APIRouter(tags=["rerank"], route_class=LeanRoute)


@router.post("/v1/rerank")
async def create_rerank(request: Request) -> Response:
    """Rate documents by their relevance to a query: blocking, or as the `Prefer` header says."""
    create_request = await create_request_of(request)
    return await create_job(request, create_request, await parse_body(request, RerankRequest, create_request.body))


@router.get("/v1/rerank/{rerank_id}")
async def retrieve_rerank(request: Request, rerank_id: str) -> Response:
    """Read rated documents, or how far their job is."""
    return await read_job(request, rerank_id, JobKind.RERANK, Query(request, "stream"))


@router.delete("/v1/rerank/{rerank_id}")
async def delete_rerank(request: Request, rerank_id: str) -> Response:
    """Stop and erase rated documents."""
    no_query(request)
    return await erased_reply(jobs_of(request), rerank_id, caller_of(request).project, JobKind.RERANK)


@router.post("/v1/score")
async def create_score(request: Request) -> Response:
    """Score pairs of texts: blocking, or as the `Prefer` header says."""
    create_request = await create_request_of(request)
    return await create_job(request, create_request, await parse_body(request, ScoreRequest, create_request.body))


@router.get("/v1/score/{score_id}")
async def retrieve_score(request: Request, score_id: str) -> Response:
    """Read scores, or how far their job is."""
    return await read_job(request, score_id, JobKind.SCORE, Query(request, "stream"))


@router.delete("/v1/score/{score_id}")
async def delete_score(request: Request, score_id: str) -> Response:
    """Stop and erase scores."""
    no_query(request)
    return await erased_reply(jobs_of(request), score_id, caller_of(request).project, JobKind.SCORE)
