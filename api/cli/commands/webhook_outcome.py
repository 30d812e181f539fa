"""Waiting in a command for what becomes of one webhook event."""

import time

from storage.database.connections import Database
from storage.webhooks import deliveries
from storage.webhooks.tables import WebhookAttempt

# A receiver has 15 s to answer.
_PATIENCE_S = 20.0
_LOOK_EVERY_S = 0.1


def first_attempt(database: Database, delivery_id: str, *, patience_s: float = _PATIENCE_S) -> WebhookAttempt | None:
    """How the first attempt of a delivery went; None when nobody has made one in time."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        with database.connect() as connection:
            attempts = deliveries.list_attempts(connection, [delivery_id])
        if attempts:
            return attempts[0]
        time.sleep(_LOOK_EVERY_S)
    return None


def answer_of(attempt: WebhookAttempt) -> str:
    """What an attempt came to: the status of the answer, or why there is none."""
    return str(attempt.status_code) if attempt.status_code is not None else (attempt.error or "no answer")
