"""An engine that has work and does not move."""

import threading

from storage.contract import JobStatus
from tests.fakes import FakeRunner, foretold, spec
from tests.waiting import wait_until
from tests.workers.harness import Backend, load, running, text_of, wait_for_answer
from workers.engine.runner import StepOutput
from workers.generation.engine_thread import EngineThread
from workers.generation.watchdog import Watchdog


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def _stands_still(dog: Watchdog, clock: Clock, num_checks: int, *, every_s: float = 2.0, pulse: int | None = 7) -> bool:
    for _ in range(num_checks):
        clock.now += every_s
        if dog.is_stuck(pulse):
            return True
    return False


def test_an_engine_that_stands_still_for_the_whole_limit_is_stuck() -> None:
    clock = Clock()
    dog = Watchdog(60.0, clock)

    assert not _stands_still(dog, clock, 30)
    assert _stands_still(dog, clock, 1)


def test_one_move_or_one_rest_begins_the_time_anew() -> None:
    clock = Clock()
    dog = Watchdog(60.0, clock)
    for move in (8, None):
        assert not _stands_still(dog, clock, 30)
        assert not dog.is_stuck(move)
    assert not _stands_still(dog, clock, 10_000, pulse=None)


def test_time_in_which_nobody_checked_counts_little() -> None:
    clock = Clock()
    dog = Watchdog(60.0, clock)
    dog.is_stuck(7)

    # Stopped for an hour, with its engine; or a watcher that waited for its database.
    clock.now += 3600

    assert not dog.is_stuck(7)
    assert _stands_still(dog, clock, 23)


class HangingRunner(FakeRunner):
    """Hangs in a step from some moment on, until it is released."""

    def __init__(self) -> None:
        super().__init__(step_s=0.005)
        self.release = threading.Event()
        self.release.set()

    def collect(self) -> StepOutput:
        self.release.wait()
        return super().collect()


def test_a_worker_whose_engine_hangs_says_so_ends_and_loses_its_jobs_to_another(backend: Backend) -> None:
    runner = HangingRunner()
    with running(backend, runner=runner, watchdog_s=1.0) as bench:
        job_id = backend.put_job(spec(200))
        bench.submit(job_id)
        backend.wait_for_tokens(job_id, 3)
        assert bench.exit_codes == []

        runner.release.clear()
        wait_until(lambda: bench.exit_codes, 10.0, "the end of the worker")

        assert bench.exit_codes[0] == 70
        runner.release.set()
    assert backend.row(job_id).status is JobStatus.QUEUED
    with running(backend) as other:
        assert wait_for_answer(other.submit(job_id)) == "acknowledged"
    assert text_of(backend.log(job_id)) == foretold(200)


def _wait_for(event: threading.Event) -> None:
    event.wait()


def test_an_engine_that_hangs_before_its_first_rest_has_a_pulse_that_stands() -> None:
    go, errors = threading.Event(), list[BaseException]()
    thread = EngineThread(lambda: load(FakeRunner()), errors.append)
    assert thread.pulse is None
    thread.put(lambda engine: _wait_for(go))
    thread.start(lambda outputs: None)

    wait_until(lambda: thread.pulse is not None)
    go.set()
    wait_until(lambda: thread.pulse is None)
    thread.stop(5.0)
    assert errors == []


def test_a_worker_that_rests_is_left_alone(backend: Backend) -> None:
    with running(backend, watchdog_s=0.1) as bench:
        beats = [0]

        def has_beaten() -> bool:
            with backend.database.connect() as connection:
                from_row = connection.exec_driver_sql("SELECT max(beat) FROM worker").scalar()
            beats.append(int(from_row or 0))
            return beats[-1] >= 4

        wait_until(has_beaten, 5.0)
        assert bench.exit_codes == []
