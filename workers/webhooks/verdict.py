"""The delivery status that follows from a receiver's answer, or from none; pure."""

from datetime import datetime, timedelta

import msgspec

from storage.webhooks.delivery_queue import Sending, Verdict
from storage.webhooks.tables import DeliveryStatus
from workers.webhooks.retry_schedule import delay_s

GONE = 410
# Status codes of overloaded receivers or of their proxies.
_BUSY = frozenset({429, 502, 504})
# The pause for such a receiver when it sends no Retry-After.
DEFAULT_PAUSE_S = 10.0


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of one POST.

    status_code:   None when no response came; `error` then says why
    retry_after_s: the receiver's Retry-After, bounded
    text:          the first 2 kB of the answer's body
    """

    status_code: int | None = None
    error: str | None = None
    retry_after_s: float | None = None
    text: str | None = None

    @property
    def is_success(self) -> bool:
        """Whether the receiver accepted the event."""
        return self.status_code is not None and 200 <= self.status_code < 300

    @property
    def pause_s(self) -> float:
        """Seconds for which nothing is sent to the receiver's destination."""
        if self.is_success:
            return 0.0
        if self.retry_after_s is not None:
            return self.retry_after_s
        return DEFAULT_PAUSE_S if self.status_code in _BUSY else 0.0

    @property
    def complaint(self) -> str | None:
        """Why the answer is a failure, for people; None when it is a success."""
        if self.is_success:
            return None
        if self.error is not None or self.status_code is None:
            return self.error
        if 300 <= self.status_code < 400:
            return f"The receiver answered {self.status_code}; redirects are not followed."
        return f"The receiver answered {self.status_code}."


def verdict_of(sending: Sending, answer: Answer, now: datetime, chance: float) -> Verdict:
    """Delivered, pending with the time of the next attempt, or dead.

    chance: as of `retry_schedule.delay_s`
    """
    if answer.is_success:
        return Verdict(status=DeliveryStatus.DELIVERED)
    if answer.status_code == GONE:
        return Verdict(status=DeliveryStatus.DEAD, is_gone=True)
    delay = delay_s(sending.num_failures + 1, chance)
    if delay is None or sending.job_id is None:
        return Verdict(status=DeliveryStatus.DEAD)
    pause = timedelta(seconds=max(delay, answer.pause_s))
    return Verdict(status=DeliveryStatus.PENDING, next_attempt_at=now + pause)
