"""Idempotency keys: the resource that a request created, so that a repeated request creates no other."""

from collections.abc import Collection
from datetime import datetime

import msgspec
from sqlalchemy import Connection, delete, select, tuple_

from storage.accounts.tables import IdempotencyKey
from storage.database.table_definitions import table_of
from storage.errors import IdempotencyKeyReused
from storage.fleet.manifests import upsert

_key = table_of(IdempotencyKey)


class KeyedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request with an `Idempotency-Key`; a different request under the same key has another `body_digest`."""

    owner: str
    key: str
    body_digest: bytes


def find(c: Connection, request: KeyedRequest, now: datetime) -> str | None:
    """The id of the resource that the request created; None when there is none or its key expired. Raises
    IdempotencyKeyReused."""
    query = select(_key.c.body_digest, _key.c.resource_id)
    query = query.where(_key.c.owner == request.owner, _key.c.key == request.key, _key.c.expires_at > now)
    row = c.execute(query).first()
    if row is None:
        return None
    if row.body_digest != request.body_digest:
        raise IdempotencyKeyReused
    return str(row.resource_id)


def take(c: Connection, request: KeyedRequest, resource_id: str, *, now: datetime, expires_at: datetime) -> bool:
    """Whether the key now stands for the resource; False when it stands for another one.

    Call it in the transaction that writes the resource, so that both are committed together.
    """
    values = {
        "body_digest": request.body_digest,
        "resource_id": resource_id,
        "created_at": now,
        "expires_at": expires_at,
    }
    inserting = upsert(c, _key).values(owner=request.owner, key=request.key, **values)
    taking = inserting.on_conflict_do_update(
        index_elements=["owner", "key"], set_=values, where=_key.c.expires_at <= now
    ).returning(_key.c.key)
    return c.execute(taking).first() is not None


def forget(c: Connection, resource_ids: Collection[str]) -> None:
    """Free the keys of resources that were erased or abandoned."""
    c.execute(delete(_key).where(_key.c.resource_id.in_(resource_ids)))


def forget_expired(c: Connection, now: datetime, limit: int = 5000) -> int:
    """How many expired keys were deleted."""
    expired = select(_key.c.owner, _key.c.key).where(_key.c.expires_at <= now).limit(limit)
    return c.execute(delete(_key).where(tuple_(_key.c.owner, _key.c.key).in_(expired))).rowcount
