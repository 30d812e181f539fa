"""`/openapi.json`: the OpenAPI schema of this API."""

from fastapi import APIRouter, FastAPI, Request
from starlette.responses import Response

from api.dependencies import no_query
from api.jobs.replies import json_reply
from api.lean_route import LeanRoute

router = APIRouter(route_class=LeanRoute)


@router.get("/openapi.json", include_in_schema=False)
async def openapi(request: Request) -> Response:
    """The OpenAPI schema."""
    no_query(request)
    app = request.scope["app"]
    assert isinstance(app, FastAPI)
    return json_reply(app.openapi())
