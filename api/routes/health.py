"""Liveness and readiness probes."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from fastapi import APIRouter, Request
from redis.exceptions import RedisError
from sqlalchemy import text
from starlette.responses import Response

from api.dependencies import services_of
from api.errors import envelope_of
from api.jobs.replies import json_reply
from api.lean_route import LeanRoute
from api.services import Services
from storage.errors import PlatformError, StorageUnavailable

router = APIRouter(tags=["health"], route_class=LeanRoute)
log = structlog.get_logger()


@router.get("/healthz")
async def healthz(_: Request) -> Response:
    """Liveness: the process answers."""
    return json_reply({"status": "ok"})


@router.get("/readyz")
async def readyz(request: Request) -> Response:
    """Readiness: database, Redis and a generation worker answer; else 503 with the names of those that do not."""
    services = services_of(request)
    checks = {"database": _database, "redis": _redis, "worker": _worker}
    results = await asyncio.gather(*(_passes(name, check, services) for name, check in checks.items()))
    words = {name: "ok" if passes else "unavailable" for name, passes in zip(checks, results, strict=True)}
    if all(results):
        return json_reply({"status": "ok", **words})
    missing = ", ".join(name for name, word in words.items() if word != "ok")
    error = StorageUnavailable(f"Not ready: {missing} does not answer.")
    body = {"status": "unavailable", **words, **envelope_of(error)}
    return json_reply(body, status=503, headers={"retry-after": "1"})


async def _passes(name: str, check: Callable[[Services], Awaitable[bool]], services: Services) -> bool:
    try:
        async with asyncio.timeout(services.settings.storage_timeout_s):
            return await check(services)
    except (PlatformError, RedisError, OSError, TimeoutError) as error:
        log.info("not_ready", check=name, error=str(error))
        return False


async def _database(services: Services) -> bool:
    return await services.reads.ask(lambda connection: connection.execute(text("SELECT 1")).scalar() == 1)


async def _redis(services: Services) -> bool:
    return bool(await services.redis.ping()) and services.relay.is_connected


async def _worker(services: Services) -> bool:
    return services.catalogue.is_ready
