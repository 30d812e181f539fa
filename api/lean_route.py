"""Route class whose handlers are run by `api/http/request_dispatch.py`, without FastAPI's parameter injection.

A handler takes the request and its path parameters, reads the rest with `api/dependencies.py`, and returns a
Response. The OpenAPI schema is generated as usual.
"""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.responses import Response

Handler = Callable[[Request], Coroutine[Any, Any, Response]]  # Any: what FastAPI itself declares


class LeanRoute(APIRoute):
    """A route of FastAPI's schema whose endpoint is called directly."""

    methods: set[str]
