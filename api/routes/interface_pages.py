"""`/openapi.json` and `/docs`: the OpenAPI schema of this API and the page that shows it; no key is needed."""

from fastapi import APIRouter, FastAPI, Request
from starlette.responses import RedirectResponse, Response

from api.dependencies import no_query
from api.errors import PathNotFound
from api.interface.documentation_page import find_file, page_response
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


@router.get("/docs", include_in_schema=False)
async def page(_: Request) -> Response:
    """The documentation page."""
    return page_response()


@router.get("/docs/{name:path}", include_in_schema=False)
async def page_file(_: Request, name: str) -> Response:
    """A file of the documentation page; the address with a slash leads to the page."""
    if not name:
        return RedirectResponse("/docs", status_code=308)
    found = find_file(name)
    if found is None:
        raise PathNotFound(f"The documentation page has no file '{name[:100]}'.")
    return found
