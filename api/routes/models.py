"""`/v1/models`: what can be asked, and whether it runs."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.catalogue import CatalogueEntry
from api.dependencies import services_of
from api.replies import json_reply

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.get("")
async def list_models(request: Request) -> Response:
    """List every model that a worker serves or served."""
    entries = services_of(request).catalogue.entries.values()
    return json_reply({"object": "list", "data": [_object_of(entry) for entry in entries]})


@router.get("/{model:path}")
async def retrieve(request: Request, model: str) -> Response:
    """Read one model."""
    return json_reply(_object_of(await services_of(request).catalogue.get(model)))


def _object_of(entry: CatalogueEntry) -> dict[str, object]:
    return {
        "id": entry.model,
        "object": "model",
        "created": entry.created_at,
        "owned_by": "tokenpost",
        "capabilities": entry.card.capabilities,
        "context_length": entry.card.context_length,
        "status": entry.status.value,
    }
