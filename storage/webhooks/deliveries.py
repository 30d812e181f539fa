"""What people ask of deliveries: how telling went, and telling again."""

from collections.abc import Collection
from datetime import datetime

import msgspec
from msgspec import structs
from sqlalchemy import Connection, Update, and_, insert, select, update

from storage.database.table_definitions import table_of
from storage.errors import WebhookDeliveryNotFound, WebhookEndpointDisabled
from storage.ids import is_public_id, new_id
from storage.network.url_policy import host_of
from storage.webhooks.endpoints import get_endpoint
from storage.webhooks.tables import DeliveryStatus, WebhookAttempt, WebhookDelivery, WebhookEndpoint

_delivery = table_of(WebhookDelivery)
_attempt = table_of(WebhookAttempt)


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """Deliveries of an endpoint by the moments of their events.

    until:  this moment
    status: only those of this status
    """

    endpoint_id: str
    owner: str
    since: datetime
    until: datetime
    status: DeliveryStatus | None = None


class Redelivered(msgspec.Struct, frozen=True, kw_only=True):
    """How far telling again has come.

    num_deliveries: those that are due again
    after:          id of the last that was looked at; None where no more are left
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
    """The owner's deliveries, by age; those of one endpoint or job where one is named.

    after: an id; only those behind it in the order are listed
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
    """What was tried for these deliveries, each delivery's attempts in their order."""
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
    """The delivery, due now and on its schedule from the start, whatever came of it before.

    WebhookDeliveryNotFound as `get_delivery`; WebhookEndpointDisabled where its endpoint is told nothing,
    WebhookEndpointNotFound where that is gone.
    """
    delivery = get_delivery(c, delivery_id, owner)
    statement = _again(now).where(_delivery.c.id == delivery_id)
    if delivery.endpoint_id is not None:
        endpoint = get_endpoint(c, delivery.endpoint_id, owner)
        _refuse_disabled(endpoint)
        statement = statement.values(_place_of(endpoint))
    c.execute(statement)
    return get_delivery(c, delivery_id, owner)


def redeliver_span(c: Connection, span: Span, so_far: Redelivered, *, limit: int = 2000) -> Redelivered:
    """Make deliveries due again, tests left out, whatever came of them before; to be called until none are left.

    One call looks at `limit` deliveries at most, so that it does not keep others from writing for long. Errors as of
    `redeliver`.
    """
    endpoint = get_endpoint(c, span.endpoint_id, span.owner)
    _refuse_disabled(endpoint)
    is_meant = _delivery.c.endpoint_id == span.endpoint_id
    if span.status is not None:
        is_meant = and_(is_meant, _delivery.c.status == span.status)
    # On by the ids, not by what is left to do: what was begun again may have ended since, and is not begun once more.
    query = select(_delivery.c.id).where(is_meant, _delivery.c.id > so_far.after).order_by(_delivery.c.id).limit(limit)
    ids = c.execute(query).scalars().all()
    if not ids:
        return structs.replace(so_far, after=None)
    statement = _again(span.until).where(is_meant, _delivery.c.id.between(ids[0], ids[-1]))
    statement = statement.where(_delivery.c.job_id.is_not(None), _delivery.c.created_at.between(span.since, span.until))
    num_deliveries = so_far.num_deliveries + c.execute(statement.values(_place_of(endpoint))).rowcount
    return Redelivered(num_deliveries=num_deliveries, after=ids[-1] if len(ids) == limit else None)


def put_test(c: Connection, endpoint: WebhookEndpoint, event_type: str, now: datetime) -> WebhookDelivery:
    """A delivery of no job, due now: tried once, also where the endpoint is disabled."""
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


def _place_of(endpoint: WebhookEndpoint) -> dict[str, object]:
    """Where the endpoint is now; it may have moved since it was told."""
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
