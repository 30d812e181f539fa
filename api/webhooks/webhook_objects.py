"""Webhook endpoints and deliveries as JSON. Source of an endpoint's shape: openai SDK 3.52.0, `client.webhooks`."""

from collections.abc import Sequence
from datetime import datetime

from storage.webhooks.event_types import EVENT_TYPES
from storage.webhooks.tables import DeliveryStatus, WebhookAttempt, WebhookDelivery, WebhookEndpoint


def endpoint_object(endpoint: WebhookEndpoint, *, shows_secret: bool = False) -> dict[str, object]:
    """An endpoint; with its secret only when it was just created, else a hint."""
    shown = {
        "id": endpoint.id,
        "object": "webhook_endpoint",
        "created_at": _unix(endpoint.created_at),
        "updated_at": _unix(endpoint.updated_at),
        "name": endpoint.name,
        "url": endpoint.url,
        "event_types": endpoint.event_types or list(EVENT_TYPES),
        "signing_secret_hint": hint_of(endpoint.secret),
        "enabled": endpoint.disabled_at is None,
        "disabled_reason": endpoint.disabled_reason,
    }
    return {**shown, "signing_secret": endpoint.secret} if shows_secret else shown


def hint_of(secret: str) -> str:
    """The last four significant characters of a secret, by which its owner recognises it."""
    return f"whsec_...{secret.rstrip('=')[-4:]}"


def deleted_endpoint(endpoint_id: str) -> dict[str, object]:
    """The answer to a DELETE."""
    return {"id": endpoint_id, "object": "webhook_endpoint.deleted", "deleted": True}


def event_type_list() -> dict[str, object]:
    """All event types."""
    return {"object": "list", "data": list(EVENT_TYPES)}


def tested_object(endpoint_id: str, event_type: str, status_code: int) -> dict[str, object]:
    """The answer to a test; `success` means that the receiver answered, with whatever status."""
    return {
        "object": "webhook_endpoint.test",
        "webhook_endpoint_id": endpoint_id,
        "event_type": event_type,
        "status_code": status_code,
        "success": True,
    }


def redelivered_object(endpoint_id: str, num_deliveries: int) -> dict[str, object]:
    """The result of a redelivery."""
    return {
        "object": "webhook_endpoint.redelivery",
        "webhook_endpoint_id": endpoint_id,
        "num_deliveries": num_deliveries,
    }


def secret_object(secret: str) -> dict[str, object]:
    """An owner's default secret."""
    return {"object": "webhook_secret", "signing_secret": secret, "signing_secret_hint": hint_of(secret)}


def delivery_objects(
    deliveries: Sequence[WebhookDelivery], attempts: Sequence[WebhookAttempt]
) -> list[dict[str, object]]:
    """The deliveries with their attempts, without signing secrets."""
    tried: dict[str, list[dict[str, object]]] = {delivery.id: [] for delivery in deliveries}
    for attempt in attempts:
        tried[attempt.delivery_id].append(_attempt_object(attempt))
    return [_delivery_object(delivery, tried[delivery.id]) for delivery in deliveries]


def _delivery_object(delivery: WebhookDelivery, attempts: list[dict[str, object]]) -> dict[str, object]:
    is_pending = delivery.status is DeliveryStatus.PENDING
    return {
        "id": delivery.id,
        "object": "webhook_delivery",
        "created_at": _unix(delivery.created_at),
        "event_id": delivery.event_id,
        "event_type": delivery.type,
        "job_id": delivery.job_id,
        "webhook_endpoint_id": delivery.endpoint_id,
        "url": delivery.url,
        "status": delivery.status.value,
        "next_attempt_at": _unix(delivery.next_attempt_at) if is_pending else None,
        "ended_at": None if delivery.ended_at is None else _unix(delivery.ended_at),
        "num_attempts": delivery.num_attempts,
        "attempts": attempts,
    }


def _attempt_object(attempt: WebhookAttempt) -> dict[str, object]:
    return {
        "number": attempt.number,
        "started_at": _unix(attempt.started_at),
        "latency_ms": attempt.latency_ms,
        "status_code": attempt.status_code,
        "error": attempt.error,
        "answer": attempt.answer,
    }


def _unix(moment: datetime) -> int:
    return int(moment.timestamp())
