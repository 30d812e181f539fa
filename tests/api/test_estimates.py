"""Estimates of start times and poll intervals from a queue position."""

import pytest

from api.capacity.estimates import poll_after_ms, position_comment_of, retry_after_s, wait_s
from api.capacity.throughput import WorkerCapacity
from storage.contract import PriorityQueue
from storage.jobs.waiting import QueuePosition

NUM_BY_QUEUE = {PriorityQueue.PRIORITY: 2, PriorityQueue.FRONT: 10, PriorityQueue.BACK: 100}
CAPACITY = WorkerCapacity(jobs_per_s=2.0, num_free=0, is_measured=True)


def position_at(number: int, priority_queue: PriorityQueue = PriorityQueue.FRONT) -> QueuePosition:
    return QueuePosition(model="demo", priority_queue=priority_queue, number=number)


@pytest.mark.parametrize(
    ("priority_queue", "position", "seconds"),
    [
        # PRIORITY and FRONT alternate; BACK comes after both.
        (PriorityQueue.PRIORITY, 1, 0.5),
        (PriorityQueue.PRIORITY, 2, 1.5),
        (PriorityQueue.FRONT, 1, 1.0),
        (PriorityQueue.FRONT, 10, 6.0),
        (PriorityQueue.BACK, 1, 6.5),
    ],
)
def test_a_job_waits_for_those_that_are_begun_before_it(
    priority_queue: PriorityQueue, position: int, seconds: float
) -> None:
    assert wait_s(position_at(position, priority_queue), NUM_BY_QUEUE, CAPACITY) == seconds


def test_free_places_are_filled_at_once_and_nobody_is_no_estimate() -> None:
    nobody_else = dict.fromkeys(PriorityQueue, 0)

    assert wait_s(position_at(3), nobody_else, WorkerCapacity(jobs_per_s=2.0, num_free=3)) == 0
    assert wait_s(position_at(5), nobody_else, WorkerCapacity(jobs_per_s=2.0, num_free=3, is_measured=True)) == 1.0
    assert wait_s(position_at(1), nobody_else, WorkerCapacity()) is None


def test_before_throughput_is_measured_only_jobs_that_need_not_wait_have_an_estimate() -> None:
    nobody_else, unmeasured = dict.fromkeys(PriorityQueue, 0), WorkerCapacity(jobs_per_s=2.0, num_free=3)

    assert [wait_s(position_at(number), nobody_else, unmeasured) for number in (1, 3, 4)] == [0, 0, None]


def test_whoever_is_far_away_asks_less_often_within_bounds() -> None:
    assert [poll_after_ms(wait) for wait in (0, 1, 10, 1000, None)] == [500, 500, 5000, 30_000, 5000]


def test_the_time_to_try_again_is_whole_seconds_within_bounds() -> None:
    assert [retry_after_s(num, 2.0) for num in (0, 1, 3, 239, 240, 10**9)] == [1, 1, 2, 120, 120, 120]
    assert retry_after_s(1, 0.0) == 120


def test_a_position_comment_is_one_sse_comment() -> None:
    assert position_comment_of(position_at(5), 2.2) == b": queue position 5, starts in about 3 s\n"
    assert position_comment_of(position_at(500), 600.0) == b": queue position 500, starts in about 10 min\n"
    assert position_comment_of(position_at(1), None) == b": queue position 1\n"
