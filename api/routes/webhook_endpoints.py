"""`/v1/webhook_endpoints`: OpenAI's API of webhook endpoints, their signing secrets, and redelivery."""

from datetime import UTC, datetime, timedelta
from functools import partial

from fastapi import APIRouter, Request
from sqlalchemy import Connection
from starlette.responses import Response

from api.dependencies import Query, body_of, caller_of, no_query, note_replay, parse_body
from api.jobs.create_request import create_request_of
from api.jobs.idempotent_replay import make_once
from api.jobs.job_services import jobs_of
from api.jobs.replies import json_reply
from api.lean_route import LeanRoute
from api.protocol.shared.lists import list_object
from api.protocol.shared.webhook_fields import EndpointTest, EndpointUpdate, NewEndpoint, Redelivery, SecretRotation
from api.webhooks import sample_event
from api.webhooks.webhook_objects import (
    deleted_endpoint,
    endpoint_object,
    event_type_list,
    redelivered_object,
    secret_object,
    tested_object,
)
from api.webhooks.webhook_services import webhooks_of
from storage.errors import InvalidRequest
from storage.ids import new_id
from storage.webhooks import endpoints
from storage.webhooks.deliveries import Redelivered, Span, redeliver_span
from storage.webhooks.signing import new_secret
from storage.webhooks.tables import DeliveryStatus, WebhookEndpoint

router = APIRouter(tags=["webhooks"], route_class=LeanRoute)

# Each endpoint receives events of every job, so the work for a job grows with their number.
_MAX_ENDPOINTS = 50
_OLD_SECRET_LIFE = timedelta(hours=24)


@router.get("/v1/webhook_endpoints")
async def list_endpoints(request: Request) -> Response:
    """List webhook endpoints, the newest first."""
    query = Query(request, "after", "limit", "order", ignores_unknown=True)
    owner, page = caller_of(request).project, query.get_page(order="desc")

    def read(connection: Connection) -> dict[str, object]:
        found = endpoints.list_endpoints(
            connection, owner, after=page.after, limit=page.limit + 1, is_newest_first=page.is_newest_first
        )
        return list_object(list(map(endpoint_object, found[: page.limit])), has_more=len(found) > page.limit)

    return json_reply(await webhooks_of(request).database.reads.ask(read))


@router.post("/v1/webhook_endpoints")
async def create(request: Request) -> Response:
    """Create a webhook endpoint. Only this answer holds its signing secret."""
    no_query(request)
    services, create_request = webhooks_of(request), await create_request_of(request)
    wanted, owner = await parse_body(request, NewEndpoint, create_request.body), create_request.caller.project
    await services.url_check.judge(wanted.url, param="url", owner=owner)
    endpoint_id, secret, now = new_id("we_"), new_secret(), datetime.now(UTC)

    def put(connection: Connection) -> WebhookEndpoint:
        if len(endpoints.list_endpoints(connection, owner, limit=_MAX_ENDPOINTS)) == _MAX_ENDPOINTS:
            raise InvalidRequest(f"There are already {_MAX_ENDPOINTS} webhook endpoints, which is the limit.")
        return endpoints.create_endpoint(
            connection,
            endpoint_id=endpoint_id,
            owner=owner,
            name=wanted.name,
            url=wanted.url,
            event_types=wanted.event_types or (),
            secret=secret,
            now=now,
        )

    def find(connection: Connection, known_id: str) -> WebhookEndpoint:
        return endpoints.get_endpoint(connection, known_id, owner)

    made, is_replay = await make_once(jobs_of(request), create_request, endpoint_id, make=put, find=find)
    note_replay(request, is_replay)
    return json_reply(endpoint_object(made, shows_secret=True))


@router.get("/v1/webhook_endpoints/{endpoint_id}")
async def retrieve(request: Request, endpoint_id: str) -> Response:
    """Read a webhook endpoint."""
    owner = caller_of(request).project
    found = await webhooks_of(request).database.reads.ask(lambda c: endpoints.get_endpoint(c, endpoint_id, owner))
    return json_reply(endpoint_object(found))


@router.post("/v1/webhook_endpoints/{endpoint_id}")
async def update(request: Request, endpoint_id: str) -> Response:
    """Change a webhook endpoint; `enabled: true` enables it again."""
    no_query(request)
    services, owner = webhooks_of(request), caller_of(request).project
    wanted = await parse_body(request, EndpointUpdate, await body_of(request))
    if wanted.url is not None:
        await services.url_check.judge(wanted.url, param="url", owner=owner)
    now = datetime.now(UTC)
    changed = await services.database.write_promptly(
        lambda connection: endpoints.update_endpoint(
            connection,
            endpoint_id,
            owner,
            name=wanted.name,
            url=wanted.url,
            event_types=wanted.event_types,
            is_enabled=wanted.enabled,
            now=now,
        )
    )
    return json_reply(endpoint_object(changed))


@router.delete("/v1/webhook_endpoints/{endpoint_id}")
async def delete(request: Request, endpoint_id: str) -> Response:
    """Delete a webhook endpoint; it receives no further events."""
    no_query(request)
    owner, now = caller_of(request).project, datetime.now(UTC)
    await webhooks_of(request).database.write_promptly(
        lambda connection: endpoints.delete_endpoint(connection, endpoint_id, owner, now)
    )
    return json_reply(deleted_endpoint(endpoint_id))


@router.post("/v1/webhook_endpoints/{endpoint_id}/rotate_secret")
async def rotate_secret(request: Request, endpoint_id: str) -> Response:
    """Replace the signing secret of a webhook endpoint; on request the old one also signs for 24 hours."""
    no_query(request)
    owner, body, now = caller_of(request).project, await body_of(request), datetime.now(UTC)
    # The body may be absent.
    wanted = await parse_body(request, SecretRotation, body or b"{}")
    until = now + _OLD_SECRET_LIFE if wanted.keep_old_secret_active_for_24_hours else None
    secret = new_secret()
    rotated = await webhooks_of(request).database.write_promptly(
        lambda connection: endpoints.rotate_secret(
            connection, endpoint_id, owner, secret=secret, keep_old_until=until, now=now
        )
    )
    return json_reply(endpoint_object(rotated, shows_secret=True))


@router.post("/v1/webhook_endpoints/{endpoint_id}/test")
async def test(request: Request, endpoint_id: str) -> Response:
    """Send a sample event to a webhook endpoint at once, even if it is disabled, and return its status code."""
    no_query(request)
    wanted = await parse_body(request, EndpointTest, await body_of(request))
    status_code = await sample_event.send(
        webhooks_of(request), endpoint_id, caller_of(request).project, wanted.event_type
    )
    return json_reply(tested_object(endpoint_id, wanted.event_type, status_code))


@router.post("/v1/webhook_endpoints/{endpoint_id}/redeliver")
async def redeliver(request: Request, endpoint_id: str) -> Response:
    """Deliver again to a webhook endpoint all events since a Unix time."""
    no_query(request)
    wanted = await parse_body(request, Redelivery, await body_of(request))
    span = Span(
        endpoint_id=endpoint_id,
        owner=caller_of(request).project,
        since=datetime.fromtimestamp(wanted.since, UTC),
        until=datetime.now(UTC),
        status=None if wanted.status is None else DeliveryStatus(wanted.status),
    )
    done = Redelivered()
    while done.after is not None:
        done = await webhooks_of(request).database.write_promptly(partial(redeliver_span, span=span, so_far=done))
    return json_reply(redelivered_object(endpoint_id, done.num_deliveries))


@router.get("/v1/webhook_event_types")
async def list_event_types(request: Request) -> Response:
    """List the types of webhook events."""
    return json_reply(event_type_list())


@router.get("/v1/webhook_secret")
async def retrieve_secret(request: Request) -> Response:
    """Read the default secret, which signs the events of jobs whose `webhook` names no secret of its own."""
    no_query(request)
    owner, fresh, now = caller_of(request).project, new_secret(), datetime.now(UTC)
    secret = await webhooks_of(request).database.write_promptly(
        lambda connection: endpoints.default_secret(connection, owner, fresh, now)
    )
    return json_reply(secret_object(secret))


@router.post("/v1/webhook_secret/rotate")
async def rotate_default_secret(request: Request) -> Response:
    """Replace the default secret from now on."""
    no_query(request)
    owner, fresh, now = caller_of(request).project, new_secret(), datetime.now(UTC)
    await webhooks_of(request).database.write_promptly(
        lambda connection: endpoints.replace_default_secret(connection, owner, fresh, now)
    )
    return json_reply(secret_object(fresh))
