"""Webhook deliveries: those of an endpoint or of a job, a single one, and redelivery."""

from datetime import UTC, datetime

from fastapi import APIRouter, Request
from sqlalchemy import Connection
from starlette.responses import Response

from api.dependencies import Query, caller_of, no_query
from api.jobs.job_views import view
from api.jobs.replies import json_reply
from api.lean_route import LeanRoute
from api.protocol.shared.lists import list_object
from api.webhooks.webhook_objects import delivery_objects
from api.webhooks.webhook_services import webhooks_of
from storage.contract import JobKind
from storage.errors import InvalidRequest
from storage.webhooks import deliveries, endpoints
from storage.webhooks.tables import DeliveryStatus, WebhookDelivery

router = APIRouter(tags=["webhooks"], route_class=LeanRoute)


@router.get("/v1/webhook_endpoints/{endpoint_id}/deliveries")
async def list_of_endpoint(request: Request, endpoint_id: str) -> Response:
    """List the deliveries of a webhook endpoint, done and pending, the newest first."""
    return await _list(request, endpoint_id=endpoint_id)


@router.get("/v1/responses/{response_id}/deliveries")
async def list_of_response(request: Request, response_id: str) -> Response:
    """List the webhook deliveries of a response."""
    return await _list(request, job_id=response_id, kind=JobKind.RESPONSE)


@router.get("/v1/chat/completions/{completion_id}/deliveries")
async def list_of_chat(request: Request, completion_id: str) -> Response:
    """List the webhook deliveries of a chat completion."""
    return await _list(request, job_id=completion_id, kind=JobKind.CHAT)


@router.get("/v1/completions/{completion_id}/deliveries")
@router.get("/v1/async/completions/{completion_id}/deliveries")
async def list_of_completion(request: Request, completion_id: str) -> Response:
    """List the webhook deliveries of a completion."""
    return await _list(request, job_id=completion_id, kind=JobKind.COMPLETION)


@router.get("/v1/embeddings/{embedding_id}/deliveries")
async def list_of_embedding(request: Request, embedding_id: str) -> Response:
    """List the webhook deliveries of embeddings."""
    return await _list(request, job_id=embedding_id, kind=JobKind.EMBEDDING)


@router.get("/v1/rerank/{rerank_id}/deliveries")
async def list_of_rerank(request: Request, rerank_id: str) -> Response:
    """List the webhook deliveries of rated documents."""
    return await _list(request, job_id=rerank_id, kind=JobKind.RERANK)


@router.get("/v1/score/{score_id}/deliveries")
async def list_of_score(request: Request, score_id: str) -> Response:
    """List the webhook deliveries of scores."""
    return await _list(request, job_id=score_id, kind=JobKind.SCORE)


@router.get("/v1/webhook_deliveries/{delivery_id}")
async def retrieve(request: Request, delivery_id: str) -> Response:
    """Read one webhook delivery with its attempts."""
    no_query(request)
    owner = caller_of(request).project
    return json_reply(
        await webhooks_of(request).database.reads.ask(
            lambda c: _object_of(c, deliveries.get_delivery(c, delivery_id, owner))
        )
    )


@router.post("/v1/webhook_deliveries/{delivery_id}/redeliver")
async def redeliver(request: Request, delivery_id: str) -> Response:
    """Deliver a webhook event again with the same id, whether or not it was delivered before."""
    no_query(request)
    owner, now = caller_of(request).project, datetime.now(UTC)
    return json_reply(
        await webhooks_of(request).database.write_promptly(
            lambda c: _object_of(c, deliveries.redeliver(c, delivery_id, owner, now))
        )
    )


async def _list(
    request: Request, *, endpoint_id: str | None = None, job_id: str | None = None, kind: JobKind | None = None
) -> Response:
    """A page of the deliveries of an endpoint or a job; 404 when the owner has no such endpoint or job."""
    query = Query(request, "status", "after", "limit", "order")
    owner, page, status = caller_of(request).project, query.get_page(order="desc"), _status_of(query)

    def read(connection: Connection) -> dict[str, object]:
        if endpoint_id is not None:
            endpoints.get_endpoint(connection, endpoint_id, owner)
        if job_id is not None and kind is not None:
            view(connection, job_id, owner, kind)
        found = deliveries.list_deliveries(
            connection,
            owner,
            endpoint_id=endpoint_id,
            job_id=job_id,
            status=status,
            after=page.after,
            limit=page.limit + 1,
            is_newest_first=page.is_newest_first,
        )
        shown = found[: page.limit]
        attempts = deliveries.list_attempts(connection, [delivery.id for delivery in shown])
        return list_object(delivery_objects(shown, attempts), has_more=len(found) > page.limit)

    return json_reply(await webhooks_of(request).database.reads.ask(read))


def _object_of(connection: Connection, delivery: WebhookDelivery) -> dict[str, object]:
    return delivery_objects([delivery], deliveries.list_attempts(connection, [delivery.id]))[0]


def _status_of(query: Query) -> DeliveryStatus | None:
    text = query.get_text("status")
    if text is None:
        return None
    try:
        return DeliveryStatus(text)
    except ValueError as error:
        raise InvalidRequest("Invalid 'status': it must be pending, delivered or dead.", param="status") from error
