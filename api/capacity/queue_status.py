"""What a job that has not ended tells besides its protocol's own: its place in line, and when to ask again."""

import math
import time

import msgspec

from api.capacity.estimates import poll_after_ms
from api.capacity.queue_statistics import Crowd
from storage.contract import End
from storage.jobs.waiting import Place

# A key of our own carries our name: Open Responses wants that of whatever it does not know.
QUEUE = "tokenpost_queue"
POLL_AFTER = "openai-poll-after-ms"


class Standing(msgspec.Struct, frozen=True):
    """Keys of the object, and headers of the answer."""

    fields: dict[str, object] = {}
    headers: dict[str, str] = {}


def standing_of(crowd: Crowd, place: Place | None, end: End | None) -> Standing:
    """Of a job at this place; None for one that is begun."""
    if end is not None:
        return _ENDED
    if place is None:
        return _BEGUN
    wait = crowd.wait_of(place)
    starts_at = None if wait is None else math.ceil(time.time() + wait)
    return Standing(
        {QUEUE: {"position": place.position, "estimated_start_at": starts_at}}, {POLL_AFTER: str(poll_after_ms(wait))}
    )


_ENDED = Standing()
_BEGUN = Standing({}, {POLL_AFTER: str(poll_after_ms(0))})
