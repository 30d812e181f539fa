"""The FastAPI application: routes, exception handlers, middleware and the lifespan of its services."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import FastAPI

from api import errors
from api.middleware import RequestFrame
from api.openapi import describe
from api.routes import chat, completions, health, models, responses, webhook_deliveries, webhook_endpoints
from api.services import Services, running
from api.settings import ApiSettings
from storage.errors import ShuttingDown


def create_app(settings: ApiSettings | None = None) -> FastAPI:
    """The API, with settings from the environment unless they are given."""
    settings = settings or ApiSettings.read()
    # FastAPI's stock pages load scripts from a public network.
    app = FastAPI(
        title="Tokenpost",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=_lifespan_of(settings),
    )
    errors.install(app)
    app.add_middleware(RequestFrame)
    for module in (responses, chat, completions, models, webhook_endpoints, webhook_deliveries, health):
        app.include_router(module.router)
    describe(app)
    return app


def begin_shutdown(app: FastAPI) -> None:
    """End open streams and waiting calls with an error that can be retried; call it on the loop's thread."""
    services = getattr(app.state, "services", None)
    if isinstance(services, Services):
        services.relay.interrupt(ShuttingDown("This server is going down; the job runs on. Ask another server for it."))


def _lifespan_of(settings: ApiSettings) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with running(settings) as services:
            app.state.services = services
            yield

    return lifespan
