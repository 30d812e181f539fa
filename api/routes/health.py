"""Whether this process lives, and whether a job that it accepts can run."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from fastapi import APIRouter, Request
from redis.exceptions import RedisError
from sqlalchemy import text
from starlette.responses import Response

from api.dependencies import services_of
from api.replies import json_reply
from api.services import Services
from storage.contract import ModelStatus
from storage.errors import PlatformError

router = APIRouter(tags=["health"])
_PATIENCE_S = 2.0
log = structlog.get_logger()


@router.get("/healthz")
async def healthz() -> Response:
    """The process lives."""
    return json_reply({"status": "ok"})


@router.get("/readyz")
async def readyz(request: Request) -> Response:
    """Database, Redis and at least one generation worker answer; else 503, and which does not."""
    services = services_of(request)
    names = ("database", "redis", "worker")
    results = await asyncio.gather(*(_check(check, services) for check in (_database, _redis, _worker)))
    body = {"status": "ok" if all(results) else "unavailable", **dict(zip(names, map(_word, results), strict=True))}
    return json_reply(body, status=200 if all(results) else 503, headers=None if all(results) else {"retry-after": "1"})


async def _check(check: Callable[[Services], Awaitable[bool]], services: Services) -> bool:
    try:
        async with asyncio.timeout(_PATIENCE_S):
            return await check(services)
    except (PlatformError, RedisError, OSError, TimeoutError) as error:
        log.warning("not_ready", check=check.__name__.strip("_"), error=str(error))
        return False


async def _database(services: Services) -> bool:
    return await services.read(lambda connection: connection.execute(text("SELECT 1")).scalar() == 1)


async def _redis(services: Services) -> bool:
    return bool(await services.async_redis.ping())


async def _worker(services: Services) -> bool:
    return any(entry.status is ModelStatus.READY for entry in services.catalogue.entries.values())


def _word(is_fine: bool) -> str:
    return "ok" if is_fine else "unavailable"
