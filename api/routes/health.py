"""Liveness and readiness probes."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import structlog
from fastapi import APIRouter, Request
from redis.exceptions import RedisError
from sqlalchemy import text
from starlette.responses import Response

from api.caches.catalogue import Catalogue
from api.errors import envelope_of
from api.jobs.job_services import JobServices, jobs_of
from api.jobs.replies import json_reply
from api.lean_route import LeanRoute
from storage.errors import PlatformError, StorageUnavailable
from storage.model_manifest import ModelStatus

router = APIRouter(tags=["health"], route_class=LeanRoute)
log = structlog.get_logger()
Check = Callable[[JobServices], Awaitable[bool]]


@router.get("/healthz")
async def healthz(_: Request) -> Response:
    """Liveness: the process answers."""
    return json_reply({"status": "ok"})


@router.get("/readyz")
async def readyz(request: Request) -> Response:
    """Readiness: database and Redis answer, and the models are ready; else 503 with the names of those that are not.

    Every expected model must be ready or have failed for good, and at least one must be ready. `?model=` asks for one.
    `failures` holds the reasons of failed models.
    """
    services = jobs_of(request)
    wanted = request.query_params.get("model")
    checks: dict[str, Check] = {"database": _database, "redis": _redis, "worker": partial(_models, wanted=wanted)}
    results = await asyncio.gather(*(_passes(name, check, services) for name, check in checks.items()))
    words = {name: "ok" if passes else "unavailable" for name, passes in zip(checks, results, strict=True)}
    statuses = services.catalogue.statuses
    if wanted is not None:
        statuses = {wanted: statuses[wanted]} if wanted in statuses else {}
    models: dict[str, object] = {"models": {model: status.value for model, status in statuses.items()}}
    failures = {model: failure for model in statuses if (failure := services.catalogue.failure_of(model)) is not None}
    if failures:
        models["failures"] = failures
    if all(results):
        return json_reply({"status": "ok", **words, **models})
    missing = [f"{name} does not answer" for name in ("database", "redis") if words[name] != "ok"]
    if words["worker"] != "ok":
        missing.append(_missing_models(services, wanted))
    error = StorageUnavailable(f"Not ready: {'; '.join(missing)}.")
    body = {"status": "unavailable", **words, **models, **envelope_of(error)}
    return json_reply(body, status=503, headers={"retry-after": "1"})


async def _passes(name: str, check: Check, services: JobServices) -> bool:
    try:
        async with asyncio.timeout(services.database.timeout_s):
            return await check(services)
    except (PlatformError, RedisError, OSError, TimeoutError) as error:
        log.info("not_ready", check=name, error=str(error))
        return False


async def _database(services: JobServices) -> bool:
    return await services.database.reads.ask(lambda connection: connection.execute(text("SELECT 1")).scalar() == 1)


async def _redis(services: JobServices) -> bool:
    return bool(await services.streaming.redis.ping()) and services.streaming.relay.is_connected


async def _models(services: JobServices, *, wanted: str | None) -> bool:
    if _are_ready(services.catalogue, wanted):
        return True
    # A model that has just become ready is seen at once, not at the next refresh.
    await services.catalogue.renew()
    return _are_ready(services.catalogue, wanted)


def _are_ready(catalogue: Catalogue, wanted: str | None) -> bool:
    if wanted is not None:
        return catalogue.statuses.get(wanted) is ModelStatus.READY
    return catalogue.is_ready and not catalogue.not_ready


def _missing_models(services: JobServices, wanted: str | None) -> str:
    catalogue = services.catalogue
    statuses = catalogue.statuses
    if wanted is not None:
        return _missing_model(catalogue, wanted)
    missing = catalogue.not_ready or statuses
    return ", ".join(_missing_model(catalogue, model) for model in missing) or "no worker is ready"


def _missing_model(catalogue: Catalogue, model: str) -> str:
    status = catalogue.statuses.get(model)
    failure = catalogue.failure_of(model)
    reason = "" if failure is None else f" ({failure})"
    return f"the model '{model}' is {'unknown' if status is None else status.value}{reason}"
