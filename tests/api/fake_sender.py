"""The CPU worker's part in webhooks, played by a thread: it fans events out, sends nothing, and records attempts."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection

from storage.database.connections import Database
from storage.webhooks import delivery_queue, events
from storage.webhooks.delivery_queue import Attempt, Sending, Verdict
from storage.webhooks.tables import DeliveryStatus

_LEASE = timedelta(seconds=30)
_POLL_S = 0.02


class FakeSender:
    """Marks every delivery dead or delivered after one attempt.

    status_code, error, answer: of every attempt
    """

    def __init__(self, database_url: str) -> None:
        self.status_code: int | None = 204
        self.error: str | None = None
        self.answer: str | None = "thanks"
        self._sent: list[Sending] = []
        self._lock = threading.Lock()
        self._database = Database(database_url)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Start polling."""
        self._thread.start()

    def stop(self) -> None:
        """Stop polling."""
        self._stopping.set()
        self._thread.join()
        self._database.dispose()

    @property
    def sent(self) -> list[Sending]:
        """The claimed deliveries, in order."""
        with self._lock:
            return list(self._sent)

    def _run(self) -> None:
        while not self._stopping.wait(_POLL_S):
            with self._lock:
                with self._database.begin() as connection:
                    sent = self._poll(connection, datetime.now(UTC))
                self._sent += sent

    def _poll(self, c: Connection, now: datetime) -> list[Sending]:
        events.fan_out(c, now)
        is_delivered = self.status_code is not None and self.status_code < 300
        verdict = Verdict(status=DeliveryStatus.DELIVERED if is_delivered else DeliveryStatus.DEAD)
        attempt = Attempt(
            started_at=now, latency_ms=7, status_code=self.status_code, error=self.error, answer=self.answer
        )
        destinations = [due.destination for due in delivery_queue.list_due_destinations(c, now)]
        claimed = [
            one
            for destination in destinations
            for one in delivery_queue.claim(c, destination, now, now + _LEASE, limit=10)
        ]
        for one in claimed:
            delivery_queue.settle(c, one, attempt, verdict, now)
        return claimed


@contextmanager
def sending(database_url: str) -> Iterator[FakeSender]:
    """A running sender."""
    sender = FakeSender(database_url)
    sender.start()
    try:
        yield sender
    finally:
        sender.stop()
