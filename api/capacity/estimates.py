"""What follows from a job's place in line: when it may begin, when to ask again, when there is room. Pure functions."""

import math
from collections.abc import Mapping

from api.capacity.throughput import WorkerCapacity
from storage.contract import PriorityQueue
from storage.jobs.waiting import QueuePosition

# The openai SDK does not try again by itself when it is told to wait longer.
MAX_RETRY_AFTER_S = 120
_MIN_POLL_MS = 500
_MAX_POLL_MS = 30_000
# Where nobody serves the model, or its pace is not measured, nothing is known but that it takes time.
_UNKNOWN_POLL_MS = 5_000


def wait_s(
    position: QueuePosition, num_by_priority_queue: Mapping[PriorityQueue, int], capacity: WorkerCapacity
) -> float | None:
    """Seconds until a job at this place is begun; None where nobody serves its model, or no pace is known yet.

    num_by_priority_queue: jobs that wait for the model
    """
    if not capacity.jobs_per_s:
        return None
    num_before = _num_until(position, num_by_priority_queue) - capacity.num_free
    if num_before <= 0:
        return 0.0
    return num_before / capacity.jobs_per_s if capacity.is_measured else None


def _num_until(position: QueuePosition, num_by_priority_queue: Mapping[PriorityQueue, int]) -> int:
    """How many jobs are begun up to this one: two lanes take turns, and the back lane comes after both."""
    number = position.number
    match position.priority_queue:
        case PriorityQueue.PRIORITY:
            return number + min(num_by_priority_queue[PriorityQueue.FRONT], number - 1)
        case PriorityQueue.FRONT:
            return number + min(num_by_priority_queue[PriorityQueue.PRIORITY], number)
        case PriorityQueue.BACK:
            return number + num_by_priority_queue[PriorityQueue.PRIORITY] + num_by_priority_queue[PriorityQueue.FRONT]


def poll_after_ms(wait: float | None) -> int:
    """When to ask again for a job that is begun in so many seconds; 0 for one that runs."""
    if wait is None:
        return _UNKNOWN_POLL_MS
    return min(_MAX_POLL_MS, max(_MIN_POLL_MS, math.ceil(wait * 500)))


def retry_after_s(num_jobs: float, jobs_per_s: float) -> int:
    """When to try again where so many jobs have to be begun first."""
    if jobs_per_s * MAX_RETRY_AFTER_S <= num_jobs:
        return MAX_RETRY_AFTER_S
    return max(1, math.ceil(num_jobs / jobs_per_s))


def note_of(position: QueuePosition, wait: float | None) -> bytes:
    """The place as an SSE comment."""
    when = "" if wait is None else f", starts in about {_duration(wait)}"
    return f": queue position {position.number}{when}\n".encode()


def _duration(seconds: float) -> str:
    return f"{max(1, math.ceil(seconds))} s" if seconds < 120 else f"{round(seconds / 60)} min"
