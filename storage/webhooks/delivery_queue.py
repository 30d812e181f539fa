"""The queue of due webhook deliveries: claiming with a lease, and settling the outcome of an attempt.

The rows with `next_attempt_at` are the queue. A sender claims a delivery with a conditional UPDATE that moves
`next_attempt_at` ahead by the lease. No other sender takes it during the lease, and when the sender dies the delivery
becomes due again.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
from msgspec import structs
from sqlalchemy import (
    Connection,
    Integer,
    Row,
    String,
    and_,
    bindparam,
    column,
    exists,
    func,
    insert,
    literal_column,
    select,
    text,
    tuple_,
    update,
)
from sqlalchemy.sql.elements import ColumnElement

from storage.database.columns import UtcDateTime
from storage.database.table_definitions import table_of
from storage.webhooks import endpoints
from storage.webhooks.tables import DeliveryStatus, WebhookAttempt, WebhookDelivery, WebhookEndpoint

_endpoint = table_of(WebhookEndpoint)
_delivery = table_of(WebhookDelivery)
_attempt = table_of(WebhookAttempt)
# A literal, not a parameter: only then does a database see that its partial index answers the question.
_IS_PENDING: ColumnElement[bool] = literal_column("webhook_delivery.status = 'pending'")

DISABLE_AFTER = timedelta(days=5)
FAILED_TOO_LONG = "Every attempt failed for 5 days."
GONE = "The receiver answered 410 Gone."


class Destination(msgspec.Struct, frozen=True, kw_only=True):
    """The deliveries of one owner to one host; they share a concurrency limit."""

    owner: str
    host: str


class DueDestination(msgspec.Struct, frozen=True, kw_only=True):
    """A destination with due deliveries, and the time since when the oldest is due."""

    destination: Destination
    due_at: datetime


class Sending(msgspec.Struct, frozen=True, kw_only=True):
    """A claimed delivery that is being sent.

    number:       of this attempt, 1 for the first; fencing token for what its failure writes
    num_failures: failed attempts before it, since the delivery was created or redelivered
    job_id:       None for a test
    secrets:      each signs
    created_at:   of the event
    """

    delivery_id: str
    event_id: str
    destination: Destination
    endpoint_id: str | None
    job_id: str | None
    type: str
    url: str
    secrets: tuple[str, ...]
    number: int
    num_failures: int
    created_at: datetime


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of one delivery attempt; fields as in `storage.webhooks.tables.WebhookAttempt`."""

    started_at: datetime
    latency_ms: int
    status_code: int | None = None
    error: str | None = None
    answer: str | None = None


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The delivery status that follows from an attempt.

    status:          PENDING: another attempt follows
    next_attempt_at: time of that attempt
    is_gone:         whether the receiver answered 410 Gone
    """

    status: DeliveryStatus
    next_attempt_at: datetime | None = None
    is_gone: bool = False


def list_due_destinations(c: Connection, now: datetime) -> list[DueDestination]:
    """The destinations with due deliveries, the longest overdue first."""
    rows = c.execute(_FIRST_DUE, {"now": now, "room": _FEW + 1}).all()
    if len(rows) > _FEW:
        rows = c.execute(_DUE_DESTINATIONS, {"now": now}).all()
    due_at: dict[Destination, datetime] = {}
    for row in rows:
        due_at.setdefault(Destination(owner=row.owner, host=row.host), row.due_at)
    return [DueDestination(destination=destination, due_at=moment) for destination, moment in due_at.items()]


# Up to so many due deliveries their destinations are collected from the rows.
_FEW = 200
# With more, a loose index scan steps from each owner and host to the next, so that a destination with a hundred
# thousand waiting deliveries costs one step.
_DUE_DESTINATIONS = (
    text("""
    WITH RECURSIVE owners (owner) AS (
        SELECT min(owner) FROM webhook_delivery WHERE status = 'pending'
        UNION ALL
        SELECT (SELECT min(d.owner) FROM webhook_delivery AS d WHERE d.status = 'pending' AND d.owner > owners.owner)
        FROM owners WHERE owners.owner IS NOT NULL
    ), lines (owner, host) AS (
        SELECT owner, (
            SELECT min(d.host) FROM webhook_delivery AS d WHERE d.status = 'pending' AND d.owner = owners.owner
        )
        FROM owners WHERE owner IS NOT NULL
        UNION ALL
        SELECT owner, (
            SELECT min(d.host) FROM webhook_delivery AS d
            WHERE d.status = 'pending' AND d.owner = lines.owner AND d.host > lines.host
        )
        FROM lines WHERE lines.host IS NOT NULL
    ), due (owner, host, due_at) AS (
        SELECT owner, host, (
            SELECT min(d.next_attempt_at) FROM webhook_delivery AS d
            WHERE d.status = 'pending' AND d.owner = lines.owner AND d.host = lines.host
        )
        FROM lines WHERE host IS NOT NULL
    )
    SELECT owner, host, due_at FROM due WHERE due_at <= :now ORDER BY due_at
    """)
    .bindparams(bindparam("now", type_=UtcDateTime))
    .columns(column("owner", String), column("host", String), column("due_at", UtcDateTime))
)


def claim(c: Connection, destination: Destination, now: datetime, until: datetime, *, limit: int) -> list[Sending]:
    """Claim at most `limit` due deliveries of a destination for the caller to send.

    until: end of the lease; they are due again then

    Deliveries of one job to one receiver are sent in order: the next waits until the one before has ended. A delivery
    whose endpoint is disabled or deleted is marked dead instead, with the other pending ones of that endpoint.
    """
    ids = c.execute(_DUE, {"by": destination.owner, "at": destination.host, "now": now, "room": limit}).scalars().all()
    if not ids:
        return []
    rows = sorted(c.execute(_TAKE, {"ids": ids, "now": now, "until": until}).all(), key=lambda row: row.id)
    endpoint_by_id = _endpoints_of(c, rows)
    sendings: list[Sending] = []
    gone: set[str] = set()
    for row in rows:
        endpoint = endpoint_by_id.get(row.endpoint_id or "")
        is_test = row.job_id is None
        if row.endpoint_id is not None and (endpoint is None or (endpoint.disabled_at is not None and not is_test)):
            _end(c, row.id, DeliveryStatus.DEAD, now)
            gone.add(row.endpoint_id)
        else:
            sendings.append(_sending_of(row, endpoint, now))
    for endpoint_id in gone:
        endpoints.mark_pending_dead(c, endpoint_id, now)
    return sendings


def settle(c: Connection, sending: Sending, attempt: Attempt, verdict: Verdict, now: datetime) -> bool:
    """Record an attempt and update its delivery; returns whether this attempt disabled the endpoint.

    A success always counts. A failure changes the delivery only if no other sender has claimed it since, and it was not
    redelivered. A failed test delivery does not count as a failure of the endpoint.
    """
    is_disabled = sending.endpoint_id is not None and _note_health(c, sending, verdict, now)
    number = {"delivery_id": sending.delivery_id, "number": sending.number}
    c.execute(_NOTE, number | structs.asdict(attempt))
    if verdict.status is DeliveryStatus.DELIVERED:
        _end(c, sending.delivery_id, DeliveryStatus.DELIVERED, now)
    elif verdict.next_attempt_at is None:
        c.execute(_GIVE_UP, _own(sending) | {"now": now})
    else:
        c.execute(_POSTPONE, _own(sending) | {"due": verdict.next_attempt_at})
    return is_disabled


def give_back(c: Connection, sendings: Sequence[Sending], now: datetime) -> None:
    """Release claimed deliveries whose attempt was not made; their attempt numbers stay used."""
    for sending in sendings:
        c.execute(_GIVE_BACK, _own(sending) | {"now": now})


def _own(sending: Sending) -> dict[str, object]:
    return {
        "of": sending.delivery_id,
        "of_number": sending.number,
        "of_before": sending.number - 1 - sending.num_failures,
    }


def _note_health(c: Connection, sending: Sending, verdict: Verdict, now: datetime) -> bool:
    """Whether the endpoint is disabled by this attempt."""
    assert sending.endpoint_id is not None
    if verdict.status is DeliveryStatus.DELIVERED:
        c.execute(_RECOVER, {"of": sending.endpoint_id})
        return False
    if sending.job_id is None:
        return False
    if verdict.is_gone:
        return endpoints.disable(c, sending.endpoint_id, GONE, now)
    c.execute(_START_FAILING, {"of": sending.endpoint_id, "now": now})
    if c.execute(_FAILED_SINCE, {"of": sending.endpoint_id, "until": now - DISABLE_AFTER}).first() is None:
        return False
    return endpoints.disable(c, sending.endpoint_id, FAILED_TOO_LONG, now)


def _end(c: Connection, delivery_id: str, status: DeliveryStatus, now: datetime) -> None:
    c.execute(_END, {"of": delivery_id, "outcome": status, "now": now})


def _endpoints_of(c: Connection, rows: Sequence[Row[*tuple[Any, ...]]]) -> dict[str, WebhookEndpoint]:
    ids = {row.endpoint_id for row in rows if row.endpoint_id is not None}
    found = c.execute(select(_endpoint).where(_endpoint.c.id.in_(ids))) if ids else ()
    return {row.id: WebhookEndpoint(**row._mapping) for row in found}


def _sending_of(row: Row[*tuple[Any, ...]], endpoint: WebhookEndpoint | None, now: datetime) -> Sending:
    """The claimed row with the endpoint's current URL and secrets, which may have changed since the fan-out."""
    return Sending(
        delivery_id=row.id,
        event_id=row.event_id,
        destination=Destination(owner=row.owner, host=row.host),
        endpoint_id=row.endpoint_id,
        job_id=row.job_id,
        type=row.type,
        url=row.url if endpoint is None else endpoint.url,
        secrets=(row.secret,) if endpoint is None else endpoints.secrets_of(endpoint, now),
        number=row.num_attempts,
        num_failures=row.num_attempts - 1 - row.num_attempts_before,
        created_at=row.created_at,
    )


# Statements are built once, as in `storage/jobs/jobs.py`.

_NOW = bindparam("now", type_=UtcDateTime)
_older = _delivery.alias()
_IS_SECOND = exists().where(
    _older.c.job_id == _delivery.c.job_id,
    _older.c.status == DeliveryStatus.PENDING,
    func.coalesce(_older.c.endpoint_id, _older.c.url) == func.coalesce(_delivery.c.endpoint_id, _delivery.c.url),
    tuple_(_older.c.created_at, _older.c.id) < tuple_(_delivery.c.created_at, _delivery.c.id),
)
_FIRST_DUE = (
    select(_delivery.c.owner, _delivery.c.host, _delivery.c.next_attempt_at.label("due_at"))
    .where(_IS_PENDING, _delivery.c.next_attempt_at <= _NOW)
    .order_by(_delivery.c.next_attempt_at)
    .limit(bindparam("room", type_=Integer))
)
_DUE = (
    select(_delivery.c.id)
    .where(_IS_PENDING, _delivery.c.owner == bindparam("by"), _delivery.c.host == bindparam("at"))
    .where(_delivery.c.next_attempt_at <= _NOW, ~_IS_SECOND)
    .order_by(_delivery.c.next_attempt_at)
    .limit(bindparam("room", type_=Integer))
    # Other senders take other deliveries of the destination; SQLite has one writer anyway.
    .with_for_update(skip_locked=True, of=_delivery)
)
_TAKE = (
    update(_delivery)
    .where(_delivery.c.id.in_(bindparam("ids", expanding=True)), _delivery.c.next_attempt_at <= _NOW, _IS_PENDING)
    .values(next_attempt_at=bindparam("until"), num_attempts=_delivery.c.num_attempts + 1)
    .returning(_delivery)
)
_NOTE = insert(_attempt)
_IS_DELIVERY = _delivery.c.id == bindparam("of")
# No other sender has claimed it since, and it was not redelivered.
_IS_OWN = and_(
    _IS_DELIVERY,
    _IS_PENDING,
    _delivery.c.num_attempts == bindparam("of_number"),
    _delivery.c.num_attempts_before == bindparam("of_before"),
)
_END = update(_delivery).where(_IS_DELIVERY).values(status=bindparam("outcome"), ended_at=_NOW)
_GIVE_UP = update(_delivery).where(_IS_OWN).values(status=DeliveryStatus.DEAD, ended_at=_NOW)
_POSTPONE = update(_delivery).where(_IS_OWN).values(next_attempt_at=bindparam("due"))
_GIVE_BACK = (
    update(_delivery)
    .where(_IS_OWN)
    .values(next_attempt_at=_NOW, num_attempts_before=_delivery.c.num_attempts_before + 1)
)
_IS_ENDPOINT = _endpoint.c.id == bindparam("of")
_RECOVER = update(_endpoint).where(_IS_ENDPOINT, _endpoint.c.failing_since.is_not(None)).values(failing_since=None)
_START_FAILING = update(_endpoint).where(_IS_ENDPOINT, _endpoint.c.failing_since.is_(None)).values(failing_since=_NOW)
_FAILED_SINCE = select(_endpoint.c.id).where(
    _IS_ENDPOINT, _endpoint.c.failing_since <= bindparam("until"), _endpoint.c.disabled_at.is_(None)
)
