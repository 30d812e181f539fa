"""`/v1/models`: the served models and their status."""

import time

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.caches.catalogue import Catalogue, ModelEntry
from api.jobs.job_services import jobs_of
from api.jobs.replies import json_reply
from api.lean_route import LeanRoute

# `created` of a model that no worker has served yet: Unix time of this process's start.
_STARTED_AT = int(time.time())

router = APIRouter(prefix="/v1/models", tags=["models"], route_class=LeanRoute)


@router.get("")
async def list_models(request: Request) -> Response:
    """List all models that a worker serves or has served, that `tokenpost up` still loads, or that failed to load."""
    catalogue = jobs_of(request).catalogue
    data = [_object_of(catalogue, entry) for entry in catalogue.entries]
    data += [_unserved_object(catalogue, model) for model in catalogue.unserved]
    return json_reply({"object": "list", "data": data})


@router.get("/{model:path}")
async def retrieve(request: Request, model: str) -> Response:
    """Read one model."""
    catalogue = jobs_of(request).catalogue
    if model in catalogue.unserved:
        return json_reply(_unserved_object(catalogue, model))
    return json_reply(_object_of(catalogue, await catalogue.get(model)))


def _object_of(catalogue: Catalogue, entry: ModelEntry) -> dict[str, object]:
    return {
        "id": entry.model,
        "object": "model",
        "created": int(entry.created_at.timestamp()),
        "owned_by": "tokenpost",
        "capabilities": entry.capabilities,
        "tool_format": entry.tool_format,
        "context_length": entry.context_length,
        "dimensions": entry.dimensions,
        "status": entry.status.value,
        "status_reason": catalogue.failure_of(entry.model),
    }


def _unserved_object(catalogue: Catalogue, model: str) -> dict[str, object]:
    """A model that no worker has served yet; its context length is not known."""
    return {
        "id": model,
        "object": "model",
        "created": _STARTED_AT,
        "owned_by": "tokenpost",
        "capabilities": {},
        "tool_format": None,
        "context_length": None,
        "dimensions": None,
        "status": catalogue.unserved[model].value,
        "status_reason": catalogue.failure_of(model),
    }
