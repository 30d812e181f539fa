"""`/v1/embeddings`."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.dependencies import Query, caller_of, no_query, parse_body
from api.jobs.create_request import create_request_of
from api.jobs.job_services import jobs_of
from api.jobs.replies import erased_reply
from api.lean_route import LeanRoute
from api.protocol.embeddings.request import EmbeddingRequest
from api.routes.job_routes import create_job, read_job
from storage.contract import JobKind

router = APIRouter(tags=["embeddings"], route_class=LeanRoute)


@router.post("/v1/embeddings")
async def create(request: Request) -> Response:
    """Create embeddings: blocking, or as the `Prefer` header says."""
    create_request = await create_request_of(request)
    return await create_job(request, create_request, await parse_body(request, EmbeddingRequest, create_request.body))


@router.get("/v1/embeddings/{embedding_id}")
async def retrieve(request: Request, embedding_id: str) -> Response:
    """Read stored embeddings, or how far their job is."""
    return await read_job(request, embedding_id, JobKind.EMBEDDING, Query(request, "stream"))


@router.delete("/v1/embeddings/{embedding_id}")
async def delete(request: Request, embedding_id: str) -> Response:
    """Stop and erase embeddings."""
    no_query(request)
    return await erased_reply(jobs_of(request), embedding_id, caller_of(request).project, JobKind.EMBEDDING)
