"""The tables of callers: API keys and idempotency keys."""

from datetime import datetime

from sqlalchemy import Column, LargeBinary
from sqlmodel import Field, SQLModel

from storage.database.columns import UtcDateTime
from storage.database.table_definitions import partial_index


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

    __table_args__ = (partial_index("ix_key_revoked_at", "revoked_at IS NOT NULL", "revoked_at"),)


class IdempotencyKey(SQLModel, table=True):
    """What a request with an `Idempotency-Key` created; kept until it expires or the resource is erased.

    body_digest: of the request; a different one under the same key is refused
    resource_id: the job or webhook endpoint
    """

    __tablename__ = "idempotency_key"

    owner: str = Field(primary_key=True)
    key: str = Field(primary_key=True)
    body_digest: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    resource_id: str = Field(index=True)
    created_at: datetime = Field(sa_column=Column(UtcDateTime, nullable=False))
    expires_at: datetime = Field(sa_column=Column(UtcDateTime, nullable=False, index=True))
