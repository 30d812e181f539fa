"""Readiness of a restarted process."""

import asyncio
from typing import assert_never

import httpx2

from api.cli.supervisor import redis_server
from api.cli.supervisor.child import Child, ChildState, Role
from api.cli.supervisor.processes import Serving
from storage.contract import WorkerStatus
from storage.database.connections import Database
from storage.errors import StorageUnavailable
from storage.fleet import lock_holders, workers

_TIMEOUT_S = 2.0


async def is_back(child: Child, serving: Serving, database: Database) -> bool:
    """Whether the process runs and is ready for its work."""
    if child.state is not ChildState.RUNNING:
        return False
    try:
        match child.spec.role:
            case Role.API:
                return await does_api_answer(serving)
            case Role.REDIS:
                await asyncio.to_thread(redis_server.check, serving.location.redis_url)
                return True
            case Role.FORK_SERVER:
                return True
            case Role.CPU_WORKER | Role.GENERATION_WORKER:
                return await asyncio.to_thread(_does_worker_work, child, database)
    except StorageUnavailable:
        return False
    assert_never(child.spec.role)


async def does_api_answer(serving: Serving) -> bool:
    """Whether the API answers; its socket belongs to the supervisor and accepts connections before that."""
    async with httpx2.AsyncClient(trust_env=False, timeout=_TIMEOUT_S) as client:
        try:
            return (await client.get(serving.url.removesuffix("/v1") + "/healthz")).is_success
        except httpx2.HTTPError:
            return False


def _does_worker_work(child: Child, database: Database) -> bool:
    with database.connect() as connection:
        if child.spec.role is Role.CPU_WORKER:
            # The sweeper lock may be held by another machine's CPU worker; then this one is on standby.
            return lock_holders.find(connection, lock_holders.SWEEPER) is not None
        row = workers.find(connection, child.worker_id or "")
        return row is not None and row.status is WorkerStatus.READY
