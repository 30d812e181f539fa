"""The tables of callers: API keys and idempotency keys."""

from datetime import datetime

from sqlalchemy import Column, LargeBinary
from sqlmodel import Field, SQLModel

from storage.database.columns import UtcDateTime


class Key(SQLModel, table=True):
    """An API key; only its digest is kept.

    digest: HMAC-SHA256 of the key under the pepper, in hex
    hint:   its first and last characters, for people
    """

    __tablename__ = "key"

    id: str = Field(primary_key=True)
    owner: str
    digest: str = Field(unique=True)
    hint: str
    created_at: datetime = Field(sa_column=Column(UtcDateTime, nullable=False))
    expires_at: datetime | None = Field(default=None, sa_column=Column(UtcDateTime))
    revoked_at: datetime | None = Field(default=None, sa_column=Column(UtcDateTime))
    last_used_at: datetime | None = Field(default=None, sa_column=Column(UtcDateTime))


class IdempotencyKey(SQLModel, table=True):
    """What a caller's `Idempotency-Key` made: kept for a while, or until that is erased.

    body_digest: of the request that came with it; another one under the same key is refused
    resource_id: the job or webhook endpoint
    """

    __tablename__ = "idempotency_key"

    owner: str = Field(primary_key=True)
    key: str = Field(primary_key=True)
    body_digest: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    resource_id: str = Field(index=True)
    created_at: datetime = Field(sa_column=Column(UtcDateTime, nullable=False))
    expires_at: datetime = Field(sa_column=Column(UtcDateTime, nullable=False, index=True))
