"""How fast a model's queue moves: estimated, then measured while jobs wait."""

from datetime import UTC, datetime, timedelta

import pytest

from api.capacity.throughput import ASSUMED_JOB_S, Throughput
from storage.contract import WorkerStatus
from storage.fleet.tables import Worker

START = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
LEASE_S = 6.0


def worker(
    beat: int,
    num_ended: int,
    *,
    name: str = "w",
    at_s: float | None = None,
    status: WorkerStatus = WorkerStatus.READY,
) -> Worker:
    """A worker of four slots after so many beats, one every two seconds."""
    return Worker(
        id=name,
        model="demo",
        status=status,
        pid=1,
        host="h",
        device="cpu",
        dtype="float32",
        beat=beat,
        slots=4,
        running=0,
        started_at=START,
        updated_at=START + timedelta(seconds=2.0 * beat if at_s is None else at_s),
        engine={"num_jobs_ended": num_ended},
    )


def rate_after(*reports: tuple[int, int], num_waiting: int = 9, running: int = 4) -> float:
    """Jobs a second after a worker reported these (beats, jobs ended)."""
    throughput = Throughput(LEASE_S)
    for beat, num_ended in reports:
        throughput.update([worker(beat, num_ended)], {"w": running}, {"demo": num_waiting}, 2.0 * beat)
    return throughput.capacity_of("demo").jobs_per_s


def test_before_anything_is_measured_a_worker_fills_its_places_once_in_a_while() -> None:
    assert rate_after((1, 0)) == pytest.approx(4 / ASSUMED_JOB_S)


def test_what_is_measured_while_jobs_wait_soon_decides() -> None:
    fast = rate_after(*((beat, 10 * beat) for beat in range(1, 30)))
    slow = rate_after(*((beat, beat // 10) for beat in range(1, 60)))

    assert fast == pytest.approx(5.0, rel=0.1)
    assert slow == pytest.approx(1 / 20, rel=0.4)


def test_a_worker_with_free_places_shows_only_what_it_can_do_at_least() -> None:
    idle = rate_after(*((beat, 0) for beat in range(1, 30)), num_waiting=0, running=0)
    quick = rate_after(*((beat, 10 * beat) for beat in range(1, 30)), num_waiting=0, running=0)
    passing = rate_after(*((beat, 0) for beat in range(1, 30)), num_waiting=3, running=0)

    assert idle == passing == pytest.approx(4 / ASSUMED_JOB_S)
    assert quick == pytest.approx(5.0, rel=0.1)


def test_nothing_is_measured_before_a_job_has_ended() -> None:
    throughput = Throughput(LEASE_S)
    measured = []
    for beat, num_ended in ((1, 0), (2, 0), (3, 1), (4, 1)):
        throughput.update([worker(beat, num_ended)], {"w": 4}, {"demo": 9}, 2.0 * beat)
        measured.append(throughput.capacity_of("demo").is_measured)

    assert measured == [False, False, True, True]


def test_old_measurements_fade() -> None:
    reports = [(beat, 10 * beat) for beat in range(1, 60)]
    reports += [(beat, 590 + (beat - 59)) for beat in range(60, 400)]

    assert rate_after(*reports) == pytest.approx(0.5, rel=0.1)


def test_a_clock_that_jumps_and_a_counter_that_begins_anew_measure_nothing() -> None:
    throughput = Throughput(LEASE_S)
    beats = [worker(1, 100), worker(2, 200, at_s=3600), worker(3, 300, at_s=-3600), worker(4, 0, at_s=-3598)]
    for now, one in enumerate(beats):
        throughput.update([one], {"w": 4}, {"demo": 9}, float(now))

    assert not throughput.capacity_of("demo").is_measured
    assert throughput.capacity_of("demo").jobs_per_s == pytest.approx(4 / ASSUMED_JOB_S)


def test_workers_add_up_and_those_that_fell_silent_or_drain_do_not_count() -> None:
    throughput = Throughput(LEASE_S)
    everybody = [worker(1, 0, name=name) for name in ("a", "b", "silent")]
    num_running = dict.fromkeys(("a", "b", "silent", "of_another_model"), 1)
    throughput.update(everybody, num_running, {}, 0.0)
    assert throughput.capacity_of("demo").num_free == 9

    both = [worker(5, 0, name=name) for name in ("a", "b")]
    draining = worker(5, 0, name="c", status=WorkerStatus.DRAINING)
    throughput.update([*both, worker(1, 0, name="silent"), draining], num_running, {}, 7.0)

    assert throughput.capacity_of("demo").num_free == 6
    assert throughput.capacity_of("demo").jobs_per_s == pytest.approx(2 * 4 / ASSUMED_JOB_S)
    throughput.update([], {}, {}, 8.0)
    assert throughput.capacity_of("demo").jobs_per_s == 0
    assert throughput.capacity_of("unknown").num_free == 0
