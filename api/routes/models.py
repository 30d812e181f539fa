"""`/v1/models`: the served models and their status."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.caches.catalogue import ModelEntry
from api.dependencies import no_query, services_of
from api.jobs.replies import json_reply
from api.lean_route import LeanRoute

router = APIRouter(prefix="/v1/models", tags=["models"], route_class=LeanRoute)


@router.get("")
async def list_models(request: Request) -> Response:
    """List all models that a worker serves or has served."""
    no_query(request)
    return json_reply({"object": "list", "data": list(map(_object_of, services_of(request).catalogue.entries))})


@router.get("/{model:path}")
async def retrieve(request: Request, model: str) -> Response:
    """Read one model."""
    no_query(request)
    return json_reply(_object_of(await services_of(request).catalogue.get(model)))


def _object_of(entry: ModelEntry) -> dict[str, object]:
    return {
        "id": entry.model,
        "object": "model",
        "created": int(entry.created_at.timestamp()),
        "owned_by": "tokenpost",
        "capabilities": entry.capabilities,
        "context_length": entry.context_length,
        "status": entry.status.value,
    }
