"""The application: what runs beside the routes, from its start to its end."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime

from anyio import to_thread
from fastapi import FastAPI

from api.auth import Gate, ensure_first_key
from api.catalogue import Catalogue
from api.errors import HANDLERS
from api.middleware import Surround
from api.relay import Relay
from api.routes import chat, completions, health, models, responses
from api.services import Services, read_ended
from api.settings import ApiSettings
from storage.contract import LogEntry
from storage.database import Database
from storage.queue import TicketPublisher
from storage.redis import connect, connect_async
from storage.writer import Writer


def create_app(settings: ApiSettings | None = None) -> FastAPI:
    """The API, with settings from the environment unless they are given."""
    settings = settings or ApiSettings.read()
    # The stock pages for the interface load their scripts from elsewhere; /openapi.json stays.
    app = FastAPI(title="Tokenpost", docs_url=None, redoc_url=None, lifespan=_lifespan_of(settings))
    for error, handler in HANDLERS.items():
        app.add_exception_handler(error, handler)
    app.add_middleware(Surround)
    for room in (responses, chat, completions, models, health):
        app.include_router(room.router)
    return app


def begin_shutdown(app: FastAPI) -> None:
    """End open streams and waiting calls with a retryable error; safe from a signal handler on the loop's thread."""
    services = getattr(app.state, "services", None)
    if isinstance(services, Services):
        services.relay.interrupt()


def _lifespan_of(settings: ApiSettings) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        services = _open(settings)
        try:
            await _start(services)
            app.state.services = services
            yield
        finally:
            await _stop(services)

    return lifespan


def _open(settings: ApiSettings) -> Services:
    database = Database(settings.database_url)
    async_redis = connect_async(settings.redis_url)
    listening = connect_async(settings.redis_url, socket_timeout_s=None)

    async def read_ended_of(job_id: str) -> list[LogEntry] | None:
        return await to_thread.run_sync(lambda: read_ended(database, job_id, datetime.now(UTC)))

    return Services(
        settings=settings,
        database=database,
        writer=Writer(database),
        tickets=TicketPublisher(settings.redis_url),
        redis=connect(settings.redis_url),
        async_redis=async_redis,
        listening_redis=listening,
        relay=Relay(async_redis, listening, read_ended_of),
        catalogue=Catalogue(settings, database),
        gate=Gate(settings, database),
    )


async def _start(services: Services) -> None:
    services.writer.start()
    services.tickets.start()
    await services.writer.call(lambda connection: ensure_first_key(connection, services.settings))
    await services.gate.start()
    await services.catalogue.start()
    await services.relay.start()


async def _stop(services: Services) -> None:
    await services.relay.stop()
    await services.catalogue.stop()
    await services.gate.stop()
    await services.finish_tasks()
    await to_thread.run_sync(services.tickets.stop)
    await to_thread.run_sync(services.writer.stop)
    await services.listening_redis.aclose()
    await services.async_redis.aclose()
    services.redis.close()
    services.database.dispose()
