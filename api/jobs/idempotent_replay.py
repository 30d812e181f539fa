"""Idempotent replay: a repeated request, known by `Idempotency-Key` or the SDK's retry count, finds its job."""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TypeVar

from sqlalchemy import Connection

from api.jobs import stored_jobs
from api.jobs.admission import refuse_without_redis
from api.jobs.create_request import CreateRequest, digest_of
from api.jobs.job_services import JobServices
from api.jobs.job_views import JobView, view_with_position
from api.jobs.submitted import Submitted
from storage.accounts import idempotency
from storage.accounts.idempotency import KeyedRequest
from storage.errors import IdempotencyKeyInUse, JobNotFound
from storage.jobs import attaching, jobs
from storage.jobs.attaching import Attached

T = TypeVar("T")


async def find_replay(
    services: JobServices, create_request: CreateRequest, digest: bytes, *, is_followed: bool
) -> Submitted | None:
    """The job of an earlier attempt, attached to; None where one is to be created. Raises IdempotencyKeyReused."""
    if create_request.key is None and create_request.num_retries == 0:
        return None  # the usual case, without a query
    attached = await _attach(services, create_request, digest)
    return (
        None if attached is None else await follow_replay(services, create_request, attached, is_followed=is_followed)
    )


async def _attach(services: JobServices, create_request: CreateRequest, digest: bytes) -> Attached | None:
    keyed, now = keyed_of(create_request, digest), services.database.clock.now()
    await refuse_without_redis(services)
    if keyed is not None:
        services.idempotency_keys_in_flight.refuse(keyed)
        # Nearly every key is new. A read finds that out, and refuses a different request, without a write transaction.
        if await services.database.reads.ask(lambda c: idempotency.find(c, keyed, now)) is None:
            return None
        return await services.database.write_promptly(lambda c: attaching.attach_keyed(c, keyed, now))
    if services.refusals.take(digest, asyncio.get_running_loop().time()):
        return None
    since = now - timedelta(seconds=create_request.timeout_s)
    return await services.database.write_promptly(
        lambda c: attaching.attach_retry(c, create_request.caller.project, digest, create_request.num_retries, since)
    )


async def follow_replay(
    services: JobServices, create_request: CreateRequest, attached: Attached, *, is_followed: bool
) -> Submitted | None:
    """The job that was attached to, from its beginning; None where it was erased since."""

    def read(connection: Connection) -> JobView:
        return view_with_position(connection, jobs.get(connection, attached.job_id, create_request.caller.project))

    try:
        job = await services.database.reads.ask(read)
    except JobNotFound:
        return None
    return Submitted(
        header=job.header,
        subscription=stored_jobs.follow(services, job) if is_followed else None,
        position=job.position,
        number=attached.number,
        is_replay=True,
        so_far=() if is_followed else await stored_jobs.so_far(services, job),
        end=None if is_followed else job.end,
    )


def keyed_of(create_request: CreateRequest, digest: bytes) -> KeyedRequest | None:
    """The idempotency record of a request with a key."""
    return (
        None
        if create_request.key is None
        else KeyedRequest(owner=create_request.caller.project, key=create_request.key, body_digest=digest)
    )


def key_expiry(services: JobServices, now: datetime) -> datetime:
    """When an idempotency key that is taken now expires."""
    return now + timedelta(seconds=services.settings.idempotency_key_ttl_s)


async def make_once(
    services: JobServices,
    create_request: CreateRequest,
    resource_id: str,
    *,
    make: Callable[[Connection], T],
    find: Callable[[Connection, str], T],
) -> tuple[T, bool]:
    """The result of `make` and False; or, for a replay, the result of `find` for the existing id and True.

    For resources other than jobs. Both functions run on the writer, in the transaction that writes the key. Whoever
    erases the resource calls `idempotency.forget`. Raises IdempotencyKeyReused, IdempotencyKeyInUse.
    """
    keyed, now = keyed_of(create_request, digest_of(create_request)), services.database.clock.now()

    def operation(connection: Connection) -> tuple[T, bool]:
        if keyed is None or idempotency.take(
            connection, keyed, resource_id, now=now, expires_at=key_expiry(services, now)
        ):
            return make(connection), False
        known_id = idempotency.find(connection, keyed, now)
        if known_id is None:
            # Another process has just erased the resource.
            raise IdempotencyKeyInUse
        return find(connection, known_id), True

    return await services.database.write_promptly(operation)
