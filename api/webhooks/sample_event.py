"""Sends a sample event to one webhook endpoint, as a test delivery, and waits for the receiver's answer."""

from datetime import UTC, datetime

from sqlalchemy import Connection

from api.webhooks import first_attempt
from api.webhooks.webhook_services import WebhookServices
from storage.webhooks import deliveries, endpoints
from storage.webhooks.errors import WebhookUnanswered


async def send(services: WebhookServices, endpoint_id: str, owner: str, event_type: str) -> int:
    """The status code of the receiver's answer.

    Raises WebhookEndpointNotFound, or WebhookUnanswered with the reason.
    """
    now = datetime.now(UTC)

    def create(connection: Connection) -> str:
        endpoint = endpoints.get_endpoint(connection, endpoint_id, owner)
        return deliveries.create_test_delivery(connection, endpoint, event_type, now).id

    delivery_id = await services.database.write_promptly(create)
    timeout_s = first_attempt.TIMEOUT_S
    attempt = await first_attempt.first_attempt(
        lambda: services.database.reads.ask(lambda c: deliveries.list_attempts(c, [delivery_id])), timeout_s
    )
    if attempt is None:
        raise WebhookUnanswered(
            f"The event was not sent within {timeout_s:.0f} s: no CPU worker runs, or the receiver asked for a pause. "
            f"It is delivery '{delivery_id}', and is still pending."
        )
    if attempt.status_code is None:
        raise WebhookUnanswered(f"The webhook endpoint did not answer. {attempt.error}")
    return attempt.status_code
