"""Route class whose endpoints are called by `api/http/request_dispatch.py`, without FastAPI's parameter injection.

An endpoint takes the request and its path parameters, reads the rest with `api/dependencies.py`, and returns a
Response. The OpenAPI schema is generated as usual.
"""

from fastapi.routing import APIRoute


class LeanRoute(APIRoute):
    """A route of FastAPI's schema whose endpoint is called directly."""

    methods: set[str]
