"""The API application: FastAPI for schema and lifespan, with a middleware and dispatcher of its own for requests."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from api.http.cross_origin import AllowedOrigins
from api.http.request_dispatch import Dispatcher
from api.interface.openapi_schema import describe
from api.jobs.job_services import JobServices
from api.middleware import RequestFrame
from api.routes import (
    batches,
    chat,
    completions,
    conversations,
    embedding_routes,
    file_routes,
    health,
    interface_pages,
    models,
    rerank_routes,
    responses,
    webhook_deliveries,
    webhook_endpoints,
)
from api.services import running
from api.settings import ApiSettings
from storage.errors import ShuttingDown


class Api(FastAPI):
    """FastAPI application that hands requests to `RequestFrame` instead of its own middleware and router."""

    request_frame: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; everything else is FastAPI's."""
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        scope["app"] = self
        await self.request_frame(scope, receive, send)


def create_app(settings: ApiSettings | None = None) -> FastAPI:
    """The API, with settings from the environment unless they are given."""
    settings = settings or ApiSettings.read()
    # FastAPI's stock pages load scripts from a public network.
    app = Api(
        title="Tokenpost",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=_lifespan_of(settings),
    )
    modules = (
        responses,
        conversations,
        chat,
        completions,
        batches,
        embedding_routes,
        rerank_routes,
        models,
        file_routes,
        webhook_endpoints,
        webhook_deliveries,
        health,
        interface_pages,
    )
    for module in modules:
        app.include_router(module.router)
    describe(app)
    app.request_frame = RequestFrame(
        Dispatcher(module.router for module in modules), AllowedOrigins(settings.allowed_origins)
    )
    return app


def begin_shutdown(app: FastAPI) -> None:
    """End open streams and waiting calls with an error that can be retried; call it on the loop's thread."""
    jobs = getattr(app.state, "jobs", None)
    if isinstance(jobs, JobServices):
        jobs.streaming.relay.interrupt(
            ShuttingDown("This server is going down; the job runs on. Ask another server for it.")
        )


def _lifespan_of(settings: ApiSettings) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with running(settings) as services:
            app.state.api_keys, app.state.bodies = services.api_keys, services.bodies
            app.state.jobs, app.state.webhooks = services.jobs, services.webhooks
            app.state.files = services.files
            app.state.inline_inputs = services.inline_inputs
            yield

    return lifespan
