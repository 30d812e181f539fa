"""What there is to tell: an event for each end of a job, written with it, and handed out to those who want it."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
import structlog
from sqlalchemy import (
    Connection,
    Insert,
    Row,
    String,
    bindparam,
    case,
    delete,
    exists,
    insert,
    literal_column,
    select,
    update,
)
from sqlalchemy.sql.elements import ColumnElement

from storage.contract import JobKind, JobStatus
from storage.database.columns import UtcDateTime
from storage.database.table_definitions import table_of
from storage.ids import new_id
from storage.jobs.tables import Job
from storage.network.url_policy import host_of
from storage.webhooks.endpoints import default_secret
from storage.webhooks.event_types import ENDS, event_type_of
from storage.webhooks.signing import new_secret
from storage.webhooks.tables import DeliveryStatus, WebhookAttempt, WebhookDelivery, WebhookEndpoint, WebhookEvent

_job = table_of(Job)
_endpoint = table_of(WebhookEndpoint)
_event = table_of(WebhookEvent)
_delivery = table_of(WebhookDelivery)
_attempt = table_of(WebhookAttempt)

log = structlog.get_logger()

_IS_NEW: ColumnElement[bool] = literal_column("NOT is_fanned_out")
# Whether anybody wants to hear of a job; in the RETURNING of the UPDATE that ends it, so that the end of a job of
# which nobody does costs no statement more. As text, because SQLAlchemy names no tables in a RETURNING for SQLite, and
# the two owners would be one. Not `IS NOT NULL`, which SQLite 3.40 calls true of every column in a RETURNING.
IS_SUBSCRIBED: ColumnElement[bool] = literal_column(
    "(coalesce(CAST(job.webhook AS TEXT), '') <> '' OR EXISTS (SELECT 1 FROM webhook_endpoint"
    " WHERE webhook_endpoint.owner = job.owner AND webhook_endpoint.disabled_at IS NULL))"
).label("is_subscribed")


def _emitting(status: JobStatus) -> Insert:
    types = {kind: event_type_of(kind, status) for kind in JobKind}
    row = select(
        bindparam("event_id", type_=String),
        _job.c.owner,
        case(types, value=_job.c.kind, else_=_job.c.kind.concat(f".{status}")),
        _job.c.id,
        bindparam("moment", type_=UtcDateTime),
        _job.c.webhook,
        literal_column("false"),
    )
    names = ["id", "owner", "type", "job_id", "created_at", "target", "is_fanned_out"]
    return insert(_event).from_select(names, row.where(_job.c.id == bindparam("of_job"), IS_SUBSCRIBED.element))


_EMIT = {status: _emitting(status) for status in ENDS}


def emit(c: Connection, job_id: str, status: JobStatus, now: datetime) -> None:
    """Write the event of a job's end, if anybody wants to hear of it.

    To be called in the transaction that ends the job, once, when its conditional UPDATE was the one that did.
    """
    c.execute(_EMIT[status], {"of_job": job_id, "event_id": new_id("evt_"), "moment": now})


def tell(c: Connection, ended: Row[*tuple[Any, ...]] | None, job_id: str, status: JobStatus, now: datetime) -> bool:
    """Whether there is an ended job; its event goes with it where somebody wants to hear of it.

    ended: what the UPDATE that ends a job returned, IS_SUBSCRIBED among it; None when it ended none
    """
    if ended is not None and ended.is_subscribed:
        emit(c, job_id, status, now)
    return ended is not None


def has_new(c: Connection) -> bool:
    """Whether an event waits to be handed out."""
    return bool(c.execute(select(exists().select_from(_event).where(_IS_NEW))).scalar())


def fan_out(c: Connection, now: datetime, *, limit: int = 200) -> int:
    """How many events were handed out: one delivery for each enabled endpoint and each own target that wants them."""
    query = select(_event).where(_IS_NEW).order_by(_event.c.created_at).limit(limit)
    # Others who hand out at this moment take other events; SQLite has one writer anyway.
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
    """How many events and deliveries were erased: those from before that moment, the deliveries with their attempts.

    What is still to be told stays.
    """
    over = select(_delivery.c.id).where(_delivery.c.created_at < before, _delivery.c.status != DeliveryStatus.PENDING)
    ids = c.execute(over.order_by(_delivery.c.created_at).limit(limit)).scalars().all()
    if ids:
        c.execute(delete(_attempt).where(_attempt.c.delivery_id.in_(ids)))
        c.execute(delete(_delivery).where(_delivery.c.id.in_(ids)))
    old = select(_event.c.id).where(_event.c.created_at < before, _event.c.is_fanned_out).limit(limit)
    return len(ids) + c.execute(delete(_event).where(_event.c.id.in_(old))).rowcount


class _Target(msgspec.Struct, frozen=True):
    """A job's own target, as `storage.jobs.tables.Job.webhook` holds it."""

    url: str
    events: list[str] | None = None
    secret: str | None = None


def _target_of(event: Row[*tuple[Any, ...]]) -> _Target | None:
    """The job's own target, if it has one; one that cannot be read is given up, so that the events behind it go on."""
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
