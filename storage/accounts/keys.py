"""All queries about API keys. A key is 256 random bits, so a keyed hash is enough and costs microseconds."""

import hmac
import secrets
from collections.abc import Collection
from datetime import datetime

import msgspec
from sqlalchemy import Connection, exists, insert, select, update

from storage.accounts.tables import Key
from storage.database.table_definitions import table_of
from storage.ids import new_id

_key = table_of(Key)
_PREFIX = "tp-"


class NewKey(msgspec.Struct, frozen=True, kw_only=True):
    """A new key; its plaintext is stored nowhere."""

    key_id: str
    plaintext: str


def create(
    c: Connection,
    owner: str,
    *,
    pepper: bytes,
    now: datetime,
    expires_at: datetime | None = None,
    plaintext: str | None = None,
) -> NewKey:
    """A new key of the owner; `plaintext` is used as the key instead of a random one."""
    secret = plaintext or _PREFIX + secrets.token_urlsafe(32)
    key_id = new_id("key_")
    c.execute(
        insert(_key).values(
            id=key_id,
            owner=owner,
            digest=digest_of(secret, pepper),
            hint=f"{secret[:5]}...{secret[-4:]}" if len(secret) >= 20 else "...",
            created_at=now,
            expires_at=expires_at,
        )
    )
    return NewKey(key_id=key_id, plaintext=secret)


def digest_of(plaintext: str, pepper: bytes) -> str:
    """HMAC-SHA256 of a key under the pepper, in hex."""
    # `hmac.new` makes an object first, which costs each request three times as much.
    return hmac.digest(pepper, plaintext.encode("utf-8", "surrogatepass"), "sha256").hex()


def find_by_digest(c: Connection, digest: str) -> Key | None:
    """The key of this digest, also when it is revoked or expired: see `is_valid`."""
    row = c.execute(select(_key).where(_key.c.digest == digest)).first()
    return None if row is None else Key(**row._mapping)


def find_many(c: Connection, digests: Collection[str]) -> dict[str, Key]:
    """The keys of these digests by digest, also revoked and expired ones."""
    rows = c.execute(select(_key).where(_key.c.digest.in_(digests)))
    return {row.digest: Key(**row._mapping) for row in rows}


def list_revoked(c: Connection, since: datetime) -> list[str]:
    """Ids of the keys that were revoked since then."""
    query = select(_key.c.id).where(_key.c.revoked_at.is_not(None), _key.c.revoked_at >= since)
    return list(c.execute(query).scalars())


def is_valid(key: Key, now: datetime) -> bool:
    """Whether the key is accepted at this moment."""
    return key.revoked_at is None and (key.expires_at is None or now < key.expires_at)


def list_keys(c: Connection, *, owner: str | None = None) -> list[Key]:
    """All keys, the oldest first."""
    query = select(_key).order_by(_key.c.created_at, _key.c.id)
    if owner is not None:
        query = query.where(_key.c.owner == owner)
    return [Key(**row._mapping) for row in c.execute(query)]


def revoke(c: Connection, key_id: str, now: datetime) -> bool:
    """Whether the key was valid until now and is not any more."""
    statement = update(_key).where(_key.c.id == key_id, _key.c.revoked_at.is_(None))
    return c.execute(statement.values(revoked_at=now)).rowcount == 1


def touch(c: Connection, key_id: str, now: datetime) -> None:
    """Record that the key was used."""
    c.execute(update(_key).where(_key.c.id == key_id).values(last_used_at=now))


def any_exists(c: Connection) -> bool:
    """Whether any key was ever created; revoked ones count, so that revoking the last does not let everyone in."""
    return bool(c.execute(select(exists().select_from(_key))).scalar())
