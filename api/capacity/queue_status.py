"""Queue status of a job that has not ended: the fields and headers that carry its position and polling interval."""

import math
import time

import msgspec

from api.capacity.estimates import poll_after_ms
from api.capacity.queue_statistics import QueueStatistics
from storage.contract import End
from storage.jobs.waiting import QueuePosition

# Open Responses asks that extensions carry their vendor's name.
QUEUE = "tokenpost_queue"
POLL_AFTER = "openai-poll-after-ms"


class QueueStatus(msgspec.Struct, frozen=True):
    """Fields of the JSON object and headers of the response."""

    fields: dict[str, object] = {}
    headers: dict[str, str] = {}


def queue_status_of(statistics: QueueStatistics, position: QueuePosition | None, end: End | None) -> QueueStatus:
    """The queue status of a job.

    position: None once the job has started
    end:      None until the job has ended
    """
    if end is not None:
        return _ENDED
    if position is None:
        return _STARTED
    position = statistics.refine(position)
    wait = statistics.wait_of(position)
    starts_at = None if wait is None else math.ceil(time.time() + wait)
    return QueueStatus(
        {QUEUE: {"position": position.number, "estimated_start_at": starts_at}},
        {POLL_AFTER: str(poll_after_ms(wait))},
    )


_ENDED = QueueStatus()
_STARTED = QueueStatus({}, {POLL_AFTER: str(poll_after_ms(0))})
