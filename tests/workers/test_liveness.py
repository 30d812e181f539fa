"""Who lives, judged by counters that move."""

from storage.contract import JobStatus
from storage.jobs.records import JobState
from workers.generation.beat import strays
from workers.maintenance.liveness import Observation, dead_workers, observe, renewed


def _running(job_id: str, attempt: int) -> JobState:
    return JobState(job_id=job_id, attempt=attempt, status=JobStatus.IN_PROGRESS, worker_id="w")


def test_a_worker_is_dead_when_its_beat_has_stood_still_for_a_lease() -> None:
    seen = observe({}, [("a", 1), ("b", 1)], now=10.0)
    seen = observe(seen, [("a", 2), ("b", 1)], now=15.9)

    assert dead_workers(seen, 15.9, lease_s=6.0) == []
    assert dead_workers(seen, 16.0, lease_s=6.0) == ["b"]


def test_a_counter_may_begin_anew_and_a_gone_worker_is_forgotten() -> None:
    seen = observe({"a": Observation(beat=900, since=1.0)}, [("a", 0)], now=50.0)

    assert dead_workers(seen, 51.0, lease_s=6.0) == []
    assert observe(seen, [], now=52.0) == {}


def test_time_without_a_database_counts_against_nobody() -> None:
    seen = observe({}, [("a", 1)], now=0.0)

    assert dead_workers(renewed(seen, 100.0), 105.0, lease_s=6.0) == []
    assert dead_workers(renewed(seen, 100.0), 106.0, lease_s=6.0) == ["a"]


def test_a_stray_job_is_one_that_its_row_does_not_give_to_this_worker() -> None:
    believed = {"mine": 1, "cancelled": 1, "requeued": 1}

    assert strays(believed, [_running("mine", 1), _running("requeued", 2), _running("other", 1)]) == [
        "cancelled",
        "requeued",
    ]
