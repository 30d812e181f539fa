"""Webhook deliveries as their owners see them: listing, attempts, redelivery and test deliveries."""

from collections.abc import Collection
from datetime import datetime

import msgspec
from msgspec import structs
from sqlalchemy import Connection, Update, and_, insert, select, update

from storage.database.table_definitions import table_of
from storage.ids import is_public_id, new_id
from storage.network.url_policy import host_of
from storage.webhooks.endpoints import get_endpoint
from storage.webhooks.errors import WebhookDeliveryNotFound, WebhookEndpointDisabled
from storage.webhooks.tables import DeliveryStatus, WebhookAttempt, WebhookDelivery, WebhookEndpoint

_delivery = table_of(WebhookDelivery)
_attempt = table_of(WebhookAttempt)


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """A time range of an endpoint's deliveries, by the creation time of their events.

    until:  the time of the request
    status: only those of this status
    """

    endpoint_id: str
    owner: str
    since: datetime
    until: datetime
    status: DeliveryStatus | None = None


class Redelivered(msgspec.Struct, frozen=True, kw_only=True):
    """Progress of a redelivery.

    num_deliveries: deliveries that are due again
    after:          id of the last delivery that was examined; None when none are left
    """

    num_deliveries: int = 0
    after: str | None = ""


def list_deliveries(
    c: Connection,
    owner: str,
    *,
    endpoint_id: str | None = None,
    job_id: str | None = None,
    status: DeliveryStatus | None = None,
    after: str | None = None,
    limit: int = 20,
    is_newest_first: bool = True,
) -> list[WebhookDelivery]:
    """A page of the owner's deliveries, by age; those of one endpoint or job if one is named.

    after: pagination cursor: the id of the last delivery of the page before
    """
    if not all(is_public_id(text) for text in (endpoint_id, job_id, after) if text is not None):
        return []
    query = select(_delivery).where(_delivery.c.owner == owner)
    if endpoint_id is not None:
        query = query.where(_delivery.c.endpoint_id == endpoint_id)
    if job_id is not None:
        query = query.where(_delivery.c.job_id == job_id)
    if status is not None:
        query = query.where(_delivery.c.status == status)
    if after is not None:
        query = query.where(_delivery.c.id < after if is_newest_first else _delivery.c.id > after)
    query = query.order_by(_delivery.c.id.desc() if is_newest_first else _delivery.c.id).limit(limit)
    return [WebhookDelivery(**row._mapping) for row in c.execute(query)]


def list_attempts(c: Connection, delivery_ids: Collection[str]) -> list[WebhookAttempt]:
    """The delivery attempts of these deliveries, ordered by delivery and number."""
    query = select(_attempt).where(_attempt.c.delivery_id.in_(delivery_ids))
    rows = c.execute(query.order_by(_attempt.c.delivery_id, _attempt.c.number))
    return [WebhookAttempt(**row._mapping) for row in rows]


def get_delivery(c: Connection, delivery_id: str, owner: str) -> WebhookDelivery:
    """The owner's delivery; WebhookDeliveryNotFound when absent or another owner's."""
    query = select(_delivery).where(_delivery.c.id == delivery_id, _delivery.c.owner == owner)
    row = c.execute(query).first() if is_public_id(delivery_id) else None
    if row is None:
        raise WebhookDeliveryNotFound(f"No webhook delivery with id '{delivery_id}'.")
    return WebhookDelivery(**row._mapping)


def redeliver(c: Connection, delivery_id: str, owner: str, now: datetime) -> WebhookDelivery:
    """Redeliver: the delivery is due now and its retry schedule starts again, whatever its status was.

    WebhookDeliveryNotFound as `get_delivery`; WebhookEndpointDisabled when its endpoint is disabled,
    WebhookEndpointNotFound when the endpoint was deleted.
    """
    delivery = get_delivery(c, delivery_id, owner)
    statement = _again(now).where(_delivery.c.id == delivery_id)
    if delivery.endpoint_id is not None:
        endpoint = get_endpoint(c, delivery.endpoint_id, owner)
        _refuse_disabled(endpoint)
        statement = statement.values(_address_of(endpoint))
    c.execute(statement)
    return get_delivery(c, delivery_id, owner)


def redeliver_span(c: Connection, span: Span, so_far: Redelivered, *, limit: int = 2000) -> Redelivered:
    """Redeliver one page of a time range, without test deliveries; call it until `after` is None.

    One call examines at most `limit` deliveries, so that the write lock is held for a short time. Errors as of
    `redeliver`.
    """
    endpoint = get_endpoint(c, span.endpoint_id, span.owner)
    _refuse_disabled(endpoint)
    is_meant = _delivery.c.endpoint_id == span.endpoint_id
    if span.status is not None:
        is_meant = and_(is_meant, _delivery.c.status == span.status)
    # Page by id, not by status: a redelivered row may have ended since, and must not be redelivered twice.
    query = select(_delivery.c.id).where(is_meant, _delivery.c.id > so_far.after).order_by(_delivery.c.id).limit(limit)
    ids = c.execute(query).scalars().all()
    if not ids:
        return structs.replace(so_far, after=None)
    statement = _again(span.until).where(is_meant, _delivery.c.id.between(ids[0], ids[-1]))
    statement = statement.where(_delivery.c.job_id.is_not(None), _delivery.c.created_at.between(span.since, span.until))
    num_deliveries = so_far.num_deliveries + c.execute(statement.values(_address_of(endpoint))).rowcount
    return Redelivered(num_deliveries=num_deliveries, after=ids[-1] if len(ids) == limit else None)


def create_test_delivery(c: Connection, endpoint: WebhookEndpoint, event_type: str, now: datetime) -> WebhookDelivery:
    """A test delivery: it belongs to no job, is due now, is attempted once, and is sent to a disabled endpoint too."""
    row = WebhookDelivery(
        id=new_id("dlv_"),
        event_id=new_id("evt_"),
        owner=endpoint.owner,
        endpoint_id=endpoint.id,
        type=event_type,
        url=endpoint.url,
        host=host_of(endpoint.url),
        status=DeliveryStatus.PENDING,
        next_attempt_at=now,
        created_at=now,
    )
    c.execute(insert(_delivery).values(**row.model_dump()))
    return row


def _address_of(endpoint: WebhookEndpoint) -> dict[str, object]:
    """The endpoint's current URL; it may have changed since the delivery was created."""
    return {"url": endpoint.url, "host": host_of(endpoint.url)}


def _again(now: datetime) -> Update:
    return update(_delivery).values(
        status=DeliveryStatus.PENDING,
        num_attempts_before=_delivery.c.num_attempts,
        next_attempt_at=now,
        ended_at=None,
    )


def _refuse_disabled(endpoint: WebhookEndpoint) -> None:
    if endpoint.disabled_at is not None:
        raise WebhookEndpointDisabled(f"The webhook endpoint '{endpoint.id}' is disabled: {endpoint.disabled_reason}")
