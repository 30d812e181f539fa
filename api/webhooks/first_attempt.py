"""Waits for the first delivery attempt of a test delivery; the API and the command line both use it."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from storage.webhooks.tables import WebhookAttempt

# A receiver has 15 s to answer; the rest is for the sender's poll.
TIMEOUT_S = 20.0
# The pause between two polls grows, so that a slow receiver costs few queries.
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 0.5

ListAttempts = Callable[[], Awaitable[Sequence[WebhookAttempt]]]


async def first_attempt(list_attempts: ListAttempts, timeout_s: float = TIMEOUT_S) -> WebhookAttempt | None:
    """The first attempt of a delivery; None when no sender has made one within the timeout."""
    loop = asyncio.get_running_loop()
    deadline, pause_s = loop.time() + timeout_s, _FIRST_PAUSE_S
    while loop.time() < deadline:
        attempts = await list_attempts()
        if attempts:
            return attempts[0]
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 1.5, _LONGEST_PAUSE_S)
    return None
