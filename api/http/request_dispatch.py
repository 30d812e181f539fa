"""Request dispatch: from method and path to a handler, without the layers of a web framework.

FastAPI describes the routes in the OpenAPI schema, but does not run them: its middleware, exit stacks and routers
took a fifth of the time of an accepted job (`docs/decisions/0030-the-http-server.md`).
"""

from collections.abc import Iterable, Mapping
from typing import Any

from fastapi.routing import APIRouter
from starlette.requests import Request
from starlette.routing import BaseRoute
from starlette.types import Receive, Scope, Send

from api.errors import MethodNotAllowed, PathNotFound
from api.http.api_versions import DEPRECATION_STATE, DEPRECATIONS, Deprecation
from api.lean_route import LeanRoute


class Dispatcher:
    """ASGI application that runs the handler of a lean route; raises PathNotFound or MethodNotAllowed."""

    def __init__(
        self,
        routers: Iterable[APIRouter],
        deprecations: Mapping[tuple[str, str], Deprecation] = DEPRECATIONS,
    ) -> None:
        """deprecations: by method and path as a route declares it"""
        routes = [_lean(route) for router in routers for route in router.routes]
        self._by_path: dict[tuple[str, str], LeanRoute] = {}
        self._with_parameters: dict[str, list[LeanRoute]] = {}
        self._deprecations = {key: one.headers() for key, one in deprecations.items()}
        self._routes = routes
        for route in routes:
            for method in route.methods:
                if route.param_convertors:
                    self._with_parameters.setdefault(method, []).append(route)
                else:
                    self._by_path.setdefault((method, route.path), route)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method, path = scope["method"], scope["path"]
        route = self._by_path.get((method, path))
        parameters: dict[str, Any] = {}
        if route is None:
            route, parameters = self._find(method, path)
            scope["path_params"] = parameters
        if self._deprecations:
            scope["state"][DEPRECATION_STATE] = self._deprecations.get((method, route.path), ())
        response = await route.endpoint(Request(scope, receive, send), **parameters)
        await response(scope, receive, send)

    # Any: a path parameter has the type that its route names.
    def _find(self, method: str, path: str) -> tuple[LeanRoute, dict[str, Any]]:
        for route in self._with_parameters.get(method, ()):
            match = route.path_regex.match(path)
            if match is not None:
                values = match.groupdict().items()
                return route, {name: route.param_convertors[name].convert(value) for name, value in values}
        allowed = {one for route in self._routes if route.path_regex.match(path) for one in route.methods}
        where = f"{method} {path}"
        if allowed:
            raise MethodNotAllowed(f"Not allowed: {where}. Please use another method.", allowed=sorted(allowed))
        raise PathNotFound(f"Unknown request URL: {where}. Please check the URL for typos.")


def _lean(route: BaseRoute) -> LeanRoute:
    assert isinstance(route, LeanRoute), f"{route} must have the route class LeanRoute"
    return route
