"""What a job that has not ended tells besides its protocol's own: its place in line, and when to ask again."""

import math
import time

import msgspec

from api.capacity.estimates import poll_after_ms
from api.capacity.queue_statistics import QueueStatistics
from storage.contract import End
from storage.jobs.waiting import QueuePosition

# A key of our own carries our name: Open Responses wants that of whatever it does not know.
QUEUE = "tokenpost_queue"
POLL_AFTER = "openai-poll-after-ms"


class QueueStatus(msgspec.Struct, frozen=True):
    """Keys of the object, and headers of the answer."""

    fields: dict[str, object] = {}
    headers: dict[str, str] = {}


def queue_status_of(statistics: QueueStatistics, position: QueuePosition | None, end: End | None) -> QueueStatus:
    """Of a job at this place; None for one that is begun."""
    if end is not None:
        return _ENDED
    if position is None:
        return _BEGUN
    wait = statistics.wait_of(position)
    starts_at = None if wait is None else math.ceil(time.time() + wait)
    return QueueStatus(
        {QUEUE: {"position": position.number, "estimated_start_at": starts_at}},
        {POLL_AFTER: str(poll_after_ms(wait))},
    )


_ENDED = QueueStatus()
_BEGUN = QueueStatus({}, {POLL_AFTER: str(poll_after_ms(0))})
