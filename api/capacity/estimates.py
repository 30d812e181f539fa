"""Estimates from a job's queue position: its start, the polling interval and `Retry-After`. Pure functions."""

import math
from collections.abc import Mapping

from api.capacity.throughput import WorkerCapacity
from storage.contract import PriorityQueue
from storage.jobs.waiting import QueuePosition

# The openai SDK does not retry by itself when `Retry-After` is longer.
MAX_RETRY_AFTER_S = 120
_MIN_POLL_MS = 500
_MAX_POLL_MS = 30_000
# Used where no worker serves the model, or its throughput has not been measured.
_UNKNOWN_POLL_MS = 5_000


def wait_s(
    position: QueuePosition, num_by_priority_queue: Mapping[PriorityQueue, int], capacity: WorkerCapacity
) -> float | None:
    """Seconds until a job at this position starts; None where no worker serves its model or throughput is unknown.

    num_by_priority_queue: queued jobs of the model
    """
    if not capacity.jobs_per_s:
        return None
    num_before = _num_until(position, num_by_priority_queue) - capacity.num_free
    if num_before <= 0:
        return 0.0
    return num_before / capacity.jobs_per_s if capacity.is_measured else None


def _num_until(position: QueuePosition, num_by_priority_queue: Mapping[PriorityQueue, int]) -> int:
    """How many jobs start up to and with this one: PRIORITY and FRONT alternate, BACK comes after both."""
    number = position.number
    match position.priority_queue:
        case PriorityQueue.PRIORITY:
            return number + min(num_by_priority_queue[PriorityQueue.FRONT], number - 1)
        case PriorityQueue.FRONT:
            return number + min(num_by_priority_queue[PriorityQueue.PRIORITY], number)
        case PriorityQueue.BACK:
            return number + num_by_priority_queue[PriorityQueue.PRIORITY] + num_by_priority_queue[PriorityQueue.FRONT]


def poll_after_ms(wait: float | None) -> int:
    """When a client should poll again, by the seconds until its job starts; 0 is for a job that runs."""
    if wait is None:
        return _UNKNOWN_POLL_MS
    return min(_MAX_POLL_MS, max(_MIN_POLL_MS, math.ceil(wait * 500)))


def retry_after_s(num_jobs: float, jobs_per_s: float) -> int:
    """`Retry-After` of a refused request that has to wait until this many jobs have started."""
    if jobs_per_s * MAX_RETRY_AFTER_S <= num_jobs:
        return MAX_RETRY_AFTER_S
    return max(1, math.ceil(num_jobs / jobs_per_s))


def position_comment_of(position: QueuePosition, wait: float | None) -> bytes:
    """The queue position as an SSE comment."""
    when = "" if wait is None else f", starts in about {_duration(wait)}"
    return f": queue position {position.number}{when}\n".encode()


def _duration(seconds: float) -> str:
    return f"{max(1, math.ceil(seconds))} s" if seconds < 120 else f"{round(seconds / 60)} min"
