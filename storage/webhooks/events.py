"""Webhook events: one is inserted in the transaction that ends a job, then fanned out to the subscribed endpoints."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
import structlog
from sqlalchemy import Connection, Row, delete, exists, insert, literal_column, select, update
from sqlalchemy.sql.elements import ColumnElement

from storage.contract import JobKind, JobStatus
from storage.database.table_definitions import table_of
from storage.ids import new_id
from storage.network.url_policy import host_of
from storage.webhooks.endpoints import default_secret
from storage.webhooks.event_types import event_type_of
from storage.webhooks.signing import new_secret
from storage.webhooks.tables import DeliveryStatus, WebhookAttempt, WebhookDelivery, WebhookEndpoint, WebhookEvent

_endpoint = table_of(WebhookEndpoint)
_event = table_of(WebhookEvent)
_delivery = table_of(WebhookDelivery)
_attempt = table_of(WebhookAttempt)

log = structlog.get_logger()

_IS_NEW: ColumnElement[bool] = literal_column("NOT is_fanned_out")
_INSERT = insert(_event)


class EndedJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job that ended, as far as its webhook event needs it.

    target: the job's own webhook target, as `storage.jobs.tables.Job.webhook`
    """

    job_id: str
    owner: str
    kind: JobKind
    status: JobStatus
    target: dict[str, object] | None


def is_subscribed(*, owner: str, target: str) -> ColumnElement[bool]:
    """SQL for whether a job's end has a webhook event: it has a target of its own, or its owner an enabled endpoint.

    For the RETURNING of the UPDATE that ends the job, so that a job without subscribers costs no further statement.

    owner, target: SQL names of the job's columns, with their table: SQLAlchemy writes no table names in a RETURNING for
                   SQLite, and both tables have an owner. `IS NOT NULL` is avoided: SQLite 3.40 finds it true of every
                   column in a RETURNING.
    """
    return literal_column(
        f"(coalesce(CAST({target} AS TEXT), '') <> '' OR EXISTS (SELECT 1 FROM webhook_endpoint"
        f" WHERE webhook_endpoint.owner = {owner} AND webhook_endpoint.disabled_at IS NULL))"
    ).label("is_subscribed")


def emit(c: Connection, ended: EndedJob, now: datetime) -> None:
    """Insert the event of a job's end. Call it in the transaction that ends the job, for a job with subscribers."""
    _insert(c, ended.job_id, ended.owner, event_type_of(ended.kind, ended.status), ended.target, now)


def emit_of_batch(c: Connection, batch_id: str, owner: str, event_type: str, now: datetime) -> None:
    """Insert the event of a batch's end, where its owner has an endpoint. Call it in the transaction that ends it."""
    query = select(exists().where(_endpoint.c.owner == owner, _endpoint.c.disabled_at.is_(None)))
    if c.execute(query).scalar():
        _insert(c, batch_id, owner, event_type, None, now)


def _insert(
    c: Connection, subject_id: str, owner: str, event_type: str, target: dict[str, object] | None, now: datetime
) -> None:
    values = {
        "id": new_id("evt_"),
        "owner": owner,
        "type": event_type,
        "job_id": subject_id,
        "created_at": now,
        "target": target,
        "is_fanned_out": False,
    }
    c.execute(_INSERT, values)


def has_new(c: Connection) -> bool:
    """Whether an event is not fanned out yet."""
    return bool(c.execute(select(exists().select_from(_event).where(_IS_NEW))).scalar())


def fan_out(c: Connection, now: datetime, *, limit: int = 200) -> int:
    """How many events were fanned out, each into a delivery for every endpoint and own target that subscribed."""
    query = select(_event).where(_IS_NEW).order_by(_event.c.created_at).limit(limit)
    # Concurrent calls take other events; SQLite has one writer anyway.
    events = c.execute(query.with_for_update(skip_locked=True)).all()
    if not events:
        return 0
    done = update(_event).where(_event.c.id.in_([event.id for event in events]))
    c.execute(done.values(is_fanned_out=True, target=None))
    endpoints = c.execute(
        select(_endpoint.c.id, _endpoint.c.owner, _endpoint.c.url, _endpoint.c.event_types)
        .where(_endpoint.c.owner.in_({event.owner for event in events}), _endpoint.c.disabled_at.is_(None))
        .order_by(_endpoint.c.id)
    ).all()
    by_owner: dict[str, list[Row[*tuple[Any, ...]]]] = {}
    for endpoint in endpoints:
        by_owner.setdefault(endpoint.owner, []).append(endpoint)
    deliveries = []
    for event in events:
        for endpoint in by_owner.get(event.owner, ()):
            if wants(endpoint.event_types, event.type):
                deliveries.append(_delivery_of(event, now, url=endpoint.url, endpoint_id=endpoint.id, secret=None))
        target = _target_of(event)
        if target is not None and wants(target.events or (), event.type):
            secret = target.secret or default_secret(c, event.owner, new_secret(), now)
            deliveries.append(_delivery_of(event, now, url=target.url, endpoint_id=None, secret=secret))
    if deliveries:
        c.execute(insert(_delivery), deliveries)
    return len(events)


def wants(event_types: Sequence[str], event_type: str) -> bool:
    """Whether a subscription holds the type; an empty one holds all."""
    return not event_types or event_type in event_types


def erase_older(c: Connection, before: datetime, *, limit: int = 500) -> int:
    """How many events and deliveries older than that moment were erased, the deliveries with their attempts.

    Pending deliveries and events that are not fanned out stay.
    """
    over = select(_delivery.c.id).where(_delivery.c.created_at < before, _delivery.c.status != DeliveryStatus.PENDING)
    ids = c.execute(over.order_by(_delivery.c.created_at).limit(limit)).scalars().all()
    if ids:
        c.execute(delete(_attempt).where(_attempt.c.delivery_id.in_(ids)))
        c.execute(delete(_delivery).where(_delivery.c.id.in_(ids)))
    old = select(_event.c.id).where(_event.c.created_at < before, _event.c.is_fanned_out).limit(limit)
    return len(ids) + c.execute(delete(_event).where(_event.c.id.in_(old))).rowcount


class _Target(msgspec.Struct, frozen=True):
    """A job's own webhook target, as `storage.jobs.tables.Job.webhook` holds it."""

    url: str
    events: list[str] | None = None
    secret: str | None = None


def _target_of(event: Row[*tuple[Any, ...]]) -> _Target | None:
    """The job's own target, if it has one. An unreadable one is dropped, so that it does not block later events."""
    if event.target is None:
        return None
    try:
        target = msgspec.convert(event.target, _Target)
        host_of(target.url)
    except ValueError as error:
        log.warning("webhook_target_unreadable", event_id=event.id, job_id=event.job_id, error=str(error))
        return None
    return target


def _delivery_of(
    event: Row[*tuple[Any, ...]], now: datetime, *, url: str, endpoint_id: str | None, secret: str | None
) -> dict[str, object]:
    return {
        "id": new_id("dlv_"),
        "event_id": event.id,
        "owner": event.owner,
        "endpoint_id": endpoint_id,
        "job_id": event.job_id,
        "type": event.type,
        "url": url,
        "host": host_of(url),
        "secret": secret,
        "status": DeliveryStatus.PENDING,
        "num_attempts": 0,
        "num_attempts_before": 0,
        "next_attempt_at": now,
        "created_at": event.created_at,
    }
