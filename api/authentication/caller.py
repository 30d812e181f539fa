"""The caller of a request: its project, key, role, scopes and limits."""

from enum import StrEnum

import msgspec


class Role(StrEnum):
    """What a caller may administer."""

    MEMBER = "member"


class Scope(StrEnum):
    """What a key may be used for."""

    ALL = "all"


class CallerLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of one caller; None is the limit of the settings."""

    max_queued: int | None = None


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who sends a request.

    project: whom jobs, webhook endpoints and idempotency keys belong to: the owner of the API key
    key_id:  None where no key is required
    """

    project: str
    key_id: str | None = None
    role: Role = Role.MEMBER
    scopes: frozenset[Scope] = frozenset({Scope.ALL})
    limits: CallerLimits = CallerLimits()
