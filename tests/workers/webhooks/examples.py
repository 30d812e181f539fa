"""Deliveries that are about to be sent."""

from datetime import UTC, datetime, timedelta

from msgspec import structs

from storage.webhooks.delivery_queue import Destination, Sending
from storage.webhooks.signing import new_secret

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
SENDING = Sending(
    delivery_id="dlv_1",
    event_id="evt_1",
    destination=Destination(owner="alice", host="example.com"),
    endpoint_id="we_1",
    job_id="resp_1",
    type="response.completed",
    url="https://example.com/hook",
    secrets=(new_secret(),),
    number=1,
    num_failures=0,
    created_at=NOW,
)


def sending(**changes: object) -> Sending:
    """A first attempt; `changes` replaces fields."""
    return structs.replace(SENDING, **changes)


def after(seconds: float) -> datetime:
    """A moment after NOW."""
    return NOW + timedelta(seconds=seconds)
