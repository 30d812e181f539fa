"""The outcome of one webhook delivery, for commands."""

import asyncio

from api.webhooks.first_attempt import TIMEOUT_S, first_attempt
from storage.database.connections import Database
from storage.webhooks import deliveries
from storage.webhooks.tables import WebhookAttempt


def wait_for_outcome(database: Database, delivery_id: str, *, timeout_s: float = TIMEOUT_S) -> WebhookAttempt | None:
    """The first attempt of a delivery; None when no sender has made one within the timeout."""

    def list_attempts() -> list[WebhookAttempt]:
        with database.connect() as connection:
            return deliveries.list_attempts(connection, [delivery_id])

    return asyncio.run(first_attempt(lambda: asyncio.to_thread(list_attempts), timeout_s))


def answer_of(attempt: WebhookAttempt) -> str:
    """The answer of the receiver to an attempt: its status code, or why there is none."""
    return str(attempt.status_code) if attempt.status_code is not None else (attempt.error or "no answer")
