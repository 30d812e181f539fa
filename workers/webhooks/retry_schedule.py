"""Retry schedule of webhook deliveries, with jitter and Retry-After; pure."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

# Before each attempt, the first included. Source: Standard Webhooks' schedule, and two days more.
SCHEDULE_S = (0, 5, 5 * 60, 30 * 60, 2 * 3600, 5 * 3600, 10 * 3600, 14 * 3600, 20 * 3600, 24 * 3600)
# Each delay is longer by up to this share, so that retries are spread out.
JITTER = 0.1
# The longest delay that a Retry-After header can ask for.
MAX_PAUSE_S = 3600.0


def delay_s(num_failures: int, chance: float) -> float | None:
    """Seconds of backoff after `num_failures` failed attempts; None when no attempt is left.

    chance: [0, 1), a random number of the caller
    """
    if num_failures >= len(SCHEDULE_S):
        return None
    return SCHEDULE_S[num_failures] * (1 + JITTER * chance)


def retry_after_s(value: str, now: datetime) -> float | None:
    """The seconds that a `Retry-After` header asks for, at most MAX_PAUSE_S; None for one that cannot be read.

    Source: RFC 9110, 10.2.3: seconds, or a date
    """
    value = value.strip()
    if value.isascii() and value.isdecimal():
        # The cut bounds the work for a number with many digits; the value is above the maximum anyway.
        return min(float(value[:12]), MAX_PAUSE_S)
    try:
        moment = parsedate_to_datetime(value)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        delay = (moment - now).total_seconds()
    except (ValueError, OverflowError, IndexError, TypeError):
        # OverflowError: a year or a zone beyond a C integer. The others: text that is no date.
        return None
    return min(max(delay, 0.0), MAX_PAUSE_S)
