"""Idempotency keys: what a call with a key made, so that the same call again makes nothing more."""

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
    """A call that carries an `Idempotency-Key`; `body_digest` tells it from another one under the same key."""

    owner: str
    key: str
    body_digest: bytes


def find(c: Connection, call: KeyedRequest, now: datetime) -> str | None:
    """The id of what this call made, None when that was nothing, or long ago; raises IdempotencyKeyReused."""
    query = select(_key.c.body_digest, _key.c.resource_id)
    query = query.where(_key.c.owner == call.owner, _key.c.key == call.key, _key.c.expires_at > now)
    row = c.execute(query).first()
    if row is None:
        return None
    if row.body_digest != call.body_digest:
        raise IdempotencyKeyReused
    return str(row.resource_id)


def take(c: Connection, call: KeyedRequest, resource_id: str, *, now: datetime, expires_at: datetime) -> bool:
    """Whether the key stands for the resource now; False when it stands for another one.

    To be called in the transaction that writes the resource, so that neither is there without the other.
    """
    values = {
        "body_digest": call.body_digest,
        "resource_id": resource_id,
        "created_at": now,
        "expires_at": expires_at,
    }
    inserting = upsert(c, _key).values(owner=call.owner, key=call.key, **values)
    taking = inserting.on_conflict_do_update(
        index_elements=["owner", "key"], set_=values, where=_key.c.expires_at <= now
    ).returning(_key.c.key)
    return c.execute(taking).first() is not None


def forget(c: Connection, resource_ids: Collection[str]) -> None:
    """Free the keys of resources that are erased, or that their callers gave up."""
    c.execute(delete(_key).where(_key.c.resource_id.in_(resource_ids)))


def forget_expired(c: Connection, now: datetime, limit: int = 5000) -> int:
    """How many keys were forgotten because their time is over."""
    expired = select(_key.c.owner, _key.c.key).where(_key.c.expires_at <= now).limit(limit)
    return c.execute(delete(_key).where(tuple_(_key.c.owner, _key.c.key).in_(expired))).rowcount
