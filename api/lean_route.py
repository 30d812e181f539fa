"""Routes without FastAPI's machinery for parameters, which we do not use: a tenth of what an accepted job costs.

Handlers take the request and what its path names, read the rest by `api/dependencies.py`, and return a Response.
The interface description in /openapi.json is made as ever.
"""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.responses import Response

Handler = Callable[[Request], Coroutine[Any, Any, Response]]  # Any: what FastAPI itself declares


class LeanRoute(APIRoute):
    """A route whose handler is called as it is."""

    def get_route_handler(self) -> Handler:
        """The handler, given what the path names."""
        endpoint = self.endpoint

        async def handle(request: Request) -> Response:
            answer = await endpoint(request, **request.path_params)
            assert isinstance(answer, Response)
            return answer

        return handle
