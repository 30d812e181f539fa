"""All queries about webhook endpoints and signing secrets."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, Update, and_, delete, insert, select, update
from sqlalchemy.sql.elements import ColumnElement

from storage.accounts import idempotency
from storage.database.table_definitions import table_of
from storage.fleet.manifests import upsert
from storage.ids import is_public_id
from storage.network.url_policy import host_of
from storage.webhooks.errors import WebhookEndpointNotFound
from storage.webhooks.tables import DeliveryStatus, WebhookDelivery, WebhookEndpoint, WebhookSecret

_endpoint = table_of(WebhookEndpoint)
_delivery = table_of(WebhookDelivery)
_secret = table_of(WebhookSecret)
_MANY = 5000
BY_OWNER = "Its owner disabled it."


def create_endpoint(
    c: Connection,
    *,
    endpoint_id: str,
    owner: str,
    name: str,
    url: str,
    event_types: Sequence[str],
    secret: str,
    now: datetime,
) -> WebhookEndpoint:
    """A new endpoint.

    url: checked before, see `storage.network.url_policy`
    """
    row = WebhookEndpoint(
        id=endpoint_id,
        owner=owner,
        name=name,
        url=url,
        event_types=list(event_types),
        secret=secret,
        created_at=now,
        updated_at=now,
    )
    c.execute(insert(_endpoint).values(**row.model_dump()))
    return row


def get_endpoint(c: Connection, endpoint_id: str, owner: str) -> WebhookEndpoint:
    """The owner's endpoint; WebhookEndpointNotFound when absent or another owner's."""
    query = select(_endpoint).where(_endpoint.c.id == endpoint_id, _endpoint.c.owner == owner)
    row = c.execute(query).first() if is_public_id(endpoint_id) else None
    if row is None:
        raise _not_found(endpoint_id)
    return WebhookEndpoint(**row._mapping)


def list_endpoints(
    c: Connection, owner: str, *, after: str | None = None, limit: int = 20, is_newest_first: bool = False
) -> list[WebhookEndpoint]:
    """The owner's endpoints, by age.

    after: pagination cursor: the id of the last endpoint of the page before
    """
    query = select(_endpoint).where(_endpoint.c.owner == owner)
    if after is not None:
        if not is_public_id(after):
            return []
        query = query.where(_endpoint.c.id < after if is_newest_first else _endpoint.c.id > after)
    query = query.order_by(_endpoint.c.id.desc() if is_newest_first else _endpoint.c.id).limit(limit)
    return [WebhookEndpoint(**row._mapping) for row in c.execute(query)]


def update_endpoint(
    c: Connection,
    endpoint_id: str,
    owner: str,
    *,
    name: str | None = None,
    url: str | None = None,
    event_types: Sequence[str] | None = None,
    is_enabled: bool | None = None,
    now: datetime,
) -> WebhookEndpoint:
    """The endpoint as it is now; None leaves a field as it was; WebhookEndpointNotFound as `get_endpoint`.

    Pending deliveries go to the new URL. A disabled endpoint gets no deliveries. An enabled one gets the events from
    then on; missed ones are sent by `deliveries.redeliver_span`. An update that changes nothing keeps `updated_at`.
    """
    before = get_endpoint(c, endpoint_id, owner)
    values: dict[str, object] = {}
    if name is not None and name != before.name:
        values["name"] = name
    if event_types is not None and list(event_types) != before.event_types:
        values["event_types"] = list(event_types)
    if url is not None and url != before.url:
        values |= {"url": url, "failing_since": None}
    if is_enabled is True and before.disabled_at is not None:
        values |= {"disabled_at": None, "disabled_reason": None, "failing_since": None}
    if values or (is_enabled is False and before.disabled_at is None):
        c.execute(update(_endpoint).where(_endpoint.c.id == endpoint_id).values({**values, "updated_at": now}))
    if url is not None:
        moving = _updating_some(_is_pending_of(endpoint_id) & (_delivery.c.url != url))
        c.execute(moving.values(url=url, host=host_of(url)))
    if is_enabled is False:
        disable(c, endpoint_id, BY_OWNER, now)
    return get_endpoint(c, endpoint_id, owner)


def disable(c: Connection, endpoint_id: str, reason: str, now: datetime) -> bool:
    """Disable the endpoint and mark its pending deliveries dead; returns whether it was enabled.

    reason: in words, for its owner
    """
    statement = update(_endpoint).where(_endpoint.c.id == endpoint_id, _endpoint.c.disabled_at.is_(None))
    was_enabled = c.execute(statement.values(disabled_at=now, disabled_reason=reason)).rowcount == 1
    mark_pending_dead(c, endpoint_id, now)
    return was_enabled


def delete_endpoint(c: Connection, endpoint_id: str, owner: str, now: datetime) -> None:
    """Remove the endpoint and its idempotency key; WebhookEndpointNotFound as `get_endpoint`.

    Its pending deliveries are marked dead. Ended deliveries stay until the retention time is over.
    """
    get_endpoint(c, endpoint_id, owner)
    c.execute(delete(_endpoint).where(_endpoint.c.id == endpoint_id))
    idempotency.forget(c, [endpoint_id])
    mark_pending_dead(c, endpoint_id, now)


def rotate_secret(
    c: Connection, endpoint_id: str, owner: str, *, secret: str, keep_old_until: datetime | None, now: datetime
) -> WebhookEndpoint:
    """The endpoint with its new secret; WebhookEndpointNotFound as `get_endpoint`.

    keep_old_until: until when the old one signs as well; None ends it now
    """
    old = get_endpoint(c, endpoint_id, owner).secret
    c.execute(
        update(_endpoint)
        .where(_endpoint.c.id == endpoint_id)
        .values(
            secret=secret,
            old_secret=None if keep_old_until is None else old,
            old_secret_until=keep_old_until,
            updated_at=now,
        )
    )
    return get_endpoint(c, endpoint_id, owner)


def secrets_of(endpoint: WebhookEndpoint, now: datetime) -> tuple[str, ...]:
    """The signing secrets at this time: the current one, and the one before while it is valid."""
    until = endpoint.old_secret_until
    if endpoint.old_secret is not None and until is not None and now < until:
        return endpoint.secret, endpoint.old_secret
    return (endpoint.secret,)


def default_secret(c: Connection, owner: str, fresh: str, now: datetime) -> str:
    """The owner's default secret; `fresh` becomes it where there is none yet."""
    find = select(_secret.c.secret).where(_secret.c.owner == owner)
    known = c.execute(find).scalar()
    if known is None:
        inserting = upsert(c, _secret).values(owner=owner, secret=fresh, created_at=now)
        c.execute(inserting.on_conflict_do_nothing(index_elements=["owner"]))
        known = c.execute(find).scalar_one()
    return str(known)


def replace_default_secret(c: Connection, owner: str, fresh: str, now: datetime) -> None:
    """Make `fresh` the owner's default secret; deliveries that exist already keep the old one."""
    inserting = upsert(c, _secret).values(owner=owner, secret=fresh, created_at=now)
    changed = {"secret": fresh, "created_at": now}
    c.execute(inserting.on_conflict_do_update(index_elements=["owner"], set_=changed))


def mark_pending_dead(c: Connection, endpoint_id: str, now: datetime) -> None:
    """Mark an endpoint's pending deliveries dead, `_MANY` at most, without test deliveries."""
    marking = _updating_some(_is_pending_of(endpoint_id) & _delivery.c.job_id.is_not(None))
    c.execute(marking.values(status=DeliveryStatus.DEAD, ended_at=now))


def _is_pending_of(endpoint_id: str) -> ColumnElement[bool]:
    return and_(_delivery.c.endpoint_id == endpoint_id, _delivery.c.status == DeliveryStatus.PENDING)


def _updating_some(is_meant: ColumnElement[bool]) -> Update:
    """An UPDATE of at most `_MANY` deliveries, so that the write lock is held for a short time.

    The rest is handled when it is due: a claim uses the endpoint's current URL, and marks the next `_MANY` deliveries
    of a deleted or disabled endpoint dead.
    """
    some = select(_delivery.c.id).where(is_meant).limit(_MANY)
    return update(_delivery).where(_delivery.c.id.in_(some), is_meant)


def _not_found(endpoint_id: str) -> WebhookEndpointNotFound:
    return WebhookEndpointNotFound(f"No webhook endpoint with id '{endpoint_id}'.")
