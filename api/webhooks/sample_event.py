"""A sample event for one webhook endpoint: put before the sender like any other, and waited for."""

import asyncio
from datetime import UTC, datetime

from sqlalchemy import Connection

from api.services import Services
from storage.errors import WebhookUnanswered
from storage.webhooks import deliveries, endpoints
from storage.webhooks.tables import WebhookAttempt

# A receiver has 15 s to answer; the rest is for the sender to find the event.
PATIENCE_S = 20.0
# Between two looks; later ones are rarer, so that a receiver that is slow costs few.
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 0.5


async def send(services: Services, endpoint_id: str, owner: str, event_type: str) -> int:
    """The status code that the receiver answered.

    Raises WebhookEndpointNotFound, or WebhookUnanswered with the reason.
    """
    now = datetime.now(UTC)

    def put(connection: Connection) -> str:
        endpoint = endpoints.get_endpoint(connection, endpoint_id, owner)
        return deliveries.put_test(connection, endpoint, event_type, now).id

    delivery_id = await services.write_promptly(put)
    attempt = await _first_attempt(services, delivery_id)
    if attempt.status_code is None:
        raise WebhookUnanswered(f"The webhook endpoint gave no answer. {attempt.error}")
    return attempt.status_code


async def _first_attempt(services: Services, delivery_id: str) -> WebhookAttempt:
    loop = asyncio.get_running_loop()
    deadline, pause_s = loop.time() + PATIENCE_S, _FIRST_PAUSE_S
    while loop.time() < deadline:
        attempts = await services.reads.ask(lambda c: deliveries.list_attempts(c, [delivery_id]))
        if attempts:
            return attempts[0]
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 1.5, _LONGEST_PAUSE_S)
    raise WebhookUnanswered(
        f"The event was not sent within {PATIENCE_S:.0f} s: no CPU worker runs, or the receiver asked for a pause. "
        f"It is delivery '{delivery_id}', and still waits."
    )
