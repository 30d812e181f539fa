"""Workers as real Celery processes: tickets, signals, sudden death."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from msgspec import structs

from storage import ids
from storage.broker.celery_queue import TicketPublisher, queue_length, queue_of
from storage.contract import (
    BACKGROUND_PRIORITY,
    URGENT_PRIORITY,
    JobSpec,
    JobStatus,
    PriorityQueue,
    WorkerStatus,
)
from storage.database.group_commit import Writer
from storage.jobs import records
from tests.fakes import BREAKS_STEP, bad_spec, foretold, spec
from tests.services import running_redis
from tests.waiting import wait_until
from tests.workers.children import WORKER, events_of, started, starting, tickets_to
from tests.workers.harness import MODEL, Backend, assert_whole, text_of, tokens_of
from workers.maintenance.sweeper import Sweeper, log_broken
from workers.periodic_thread import PeriodicThread
from workers.settings import SweeperSettings


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """SQLite only: what processes do does not depend on the database, and they take their time."""
    return sqlite_url


@pytest.fixture
def backend(database_url: str, redis_url: str) -> Iterator[Backend]:
    """With a lease that processes keep on a busy machine as well: only who is killed counts as dead."""
    opened = Backend(database_url, redis_url, lease_s=3.0)
    yield opened
    opened.close()


@pytest.fixture
def tickets(backend: Backend) -> Iterator[TicketPublisher]:
    with tickets_to(backend) as publisher:
        yield publisher


@contextmanager
def sweeping(backend: Backend, tickets: TicketPublisher) -> Iterator[None]:
    """The sweeper at work, quicker than in real life."""
    settings = SweeperSettings(worker_id=ids.new_id("cpu_"), sweep_interval_s=0.1, ticket_slack_s=0.3)
    writer = Writer(backend.database)
    writer.start()
    sweeper = Sweeper(settings, backend.settings, backend.database, writer, backend.redis, tickets)
    thread = PeriodicThread("sweeper", sweeper.sweep, period_s=settings.sweep_interval_s, on_error=log_broken)
    thread.start()
    try:
        yield
    finally:
        thread.stop(5.0)
        writer.stop()


def _is_answered(backend: Backend) -> bool:
    return not backend.redis.hlen("unacked") and not queue_length(backend.redis, MODEL)


def _wait_for_all(backend: Backend, job_ids: list[str], timeout_s: float = 20.0) -> None:
    for job_id in job_ids:
        backend.wait_for_status(job_id, JobStatus.COMPLETED, timeout_s)
    wait_until(lambda: all(backend.is_closed(job_id) for job_id in job_ids))


def test_tickets_become_results_and_are_acknowledged(
    backend: Backend, tickets: TicketPublisher, tmp_path: Path
) -> None:
    job_ids = [backend.put_job(spec(20, salt=salt)) for salt in range(60)]
    with started(backend, tmp_path, command=WORKER, fake_step_s=0.002, log_format="json") as child:
        for job_id in [*job_ids, job_ids[0]]:
            tickets.send(job_id, MODEL)

        _wait_for_all(backend, job_ids)

        wait_until(lambda: _is_answered(backend))
        for salt, job_id in enumerate(job_ids):
            assert_whole(backend.log(job_id), records.result_of(backend.row(job_id)))
            assert text_of(backend.log(job_id)) == foretold(20, salt=salt)
            assert backend.row(job_id).attempt == 1
        child.terminate()
        assert child.wait(10.0) == 0, child.log
        assert child.status() is WorkerStatus.DEAD
        assert "worker_draining" in events_of(child.log)


def _patient(num_tokens: int, *, salt: int = 3) -> JobSpec:
    """A job of which nobody waits for the answer."""
    return structs.replace(spec(num_tokens, salt=salt), priority=BACKGROUND_PRIORITY)


def test_a_worker_full_of_background_jobs_takes_other_jobs(
    backend: Backend, tickets: TicketPublisher, tmp_path: Path
) -> None:
    patient = [backend.put_job(_patient(500, salt=salt)) for salt in range(5)]
    with started(backend, tmp_path, fake_step_s=0.01, max_running=2, lookahead=1) as child:
        for job_id in patient:
            tickets.send(job_id, MODEL, PriorityQueue.BACK)
        wait_until(lambda: sum(backend.row(job_id).status is JobStatus.IN_PROGRESS for job_id in patient) == 3)

        tickets.send(urgent := backend.put_job(spec(5)), MODEL)
        backend.wait_for_status(urgent, JobStatus.COMPLETED)

        statuses = [backend.row(job_id).status for job_id in patient]
        assert sorted(statuses) == [JobStatus.IN_PROGRESS] * 3 + [JobStatus.QUEUED] * 2
        assert backend.redis.llen(queue_of(MODEL, PriorityQueue.BACK)) == 2
        # All are answered, also those of the back queue.
        for job_id in patient:
            backend.cancel(job_id, child.worker_id)
        wait_until(lambda: _is_answered(backend))


def _urgent(num_tokens: int) -> JobSpec:
    """A job of the priority queue."""
    return structs.replace(spec(num_tokens), priority=URGENT_PRIORITY)


def test_priority_overtakes_those_that_wait_and_those_that_run(
    backend: Backend, tickets: TicketPublisher, tmp_path: Path
) -> None:
    default = [backend.put_job(spec(900, salt=salt)) for salt in range(6)]
    with started(backend, tmp_path, fake_step_s=0.01, max_running=2, lookahead=1) as child:
        for job_id in default:
            tickets.send(job_id, MODEL)
        wait_until(lambda: backend.redis.llen(queue_of(MODEL)) == 3)
        tickets.send(urgent := backend.put_job(_urgent(5)), MODEL, PriorityQueue.PRIORITY)
        wait_until(lambda: backend.redis.llen(queue_of(MODEL, PriorityQueue.PRIORITY)) == 1)

        # One of those that run makes room for one ticket.
        backend.cancel(default[0], child.worker_id)
        backend.wait_for_status(urgent, JobStatus.COMPLETED)

        assert [backend.row(job_id).status for job_id in default[3:]][1:] == [JobStatus.QUEUED] * 2
        assert JobStatus.COMPLETED not in {backend.row(job_id).status for job_id in default}


def test_neither_of_priority_and_front_shuts_out_the_other(
    backend: Backend, tickets: TicketPublisher, tmp_path: Path
) -> None:
    urgent = [backend.put_job(_urgent(20)) for _ in range(12)]
    default = backend.put_job(spec(5))
    for job_id in urgent:
        tickets.send(job_id, MODEL, PriorityQueue.PRIORITY)
    tickets.send(default, MODEL)
    wait_until(lambda: queue_length(backend.redis, MODEL) == 13)

    with started(backend, tmp_path, fake_step_s=0.01, max_running=1, lookahead=1):
        wait_until(lambda: backend.row(default).attempt == 1)

        assert sum(backend.row(job_id).attempt for job_id in urgent) < 4
        _wait_for_all(backend, [*urgent, default])


def test_both_queues_together_fill_a_worker(backend: Backend, tickets: TicketPublisher, tmp_path: Path) -> None:
    urgent = [backend.put_job(spec(500, salt=salt)) for salt in range(3)]
    patient = backend.put_job(_patient(5))
    with started(backend, tmp_path, fake_step_s=0.005, max_running=2, lookahead=1) as child:
        for job_id in urgent:
            tickets.send(job_id, MODEL)
        wait_until(lambda: all(tokens_of(backend.log(job_id)) for job_id in urgent))
        tickets.send(patient, MODEL, PriorityQueue.BACK)
        backend.wait_for_tokens(urgent[0], 100)
        assert backend.row(patient).status is JobStatus.QUEUED

        backend.cancel(urgent[0], child.worker_id)

        backend.wait_for_status(patient, JobStatus.COMPLETED)
        assert backend.row(urgent[1]).status is JobStatus.IN_PROGRESS


def test_a_killed_workers_jobs_go_on_elsewhere_without_a_gap(
    backend: Backend, tickets: TicketPublisher, tmp_path: Path
) -> None:
    job_ids = [backend.put_job(spec(120, salt=salt)) for salt in range(20)]
    with started(backend, tmp_path, fake_step_s=0.01) as first, started(backend, tmp_path, fake_step_s=0.002) as second:
        for job_id in job_ids:
            tickets.send(job_id, MODEL)
        wait_until(lambda: sum(bool(tokens_of(backend.log(job_id))) for job_id in job_ids) == len(job_ids), 10.0)

        with sweeping(backend, tickets):
            first.kill()
            _wait_for_all(backend, job_ids)

        resumed = [backend.row(job_id) for job_id in job_ids if backend.row(job_id).attempt == 2]
        assert resumed
        assert all((row.worker_id, row.lost_attempts) == (second.worker_id, 1) for row in resumed)
        for salt, job_id in enumerate(job_ids):
            assert_whole(backend.log(job_id), records.result_of(backend.row(job_id)))
            assert text_of(backend.log(job_id)) == foretold(120, salt=salt)


def test_a_terminated_worker_finishes_what_it_can_and_gives_the_rest_back(
    backend: Backend, tickets: TicketPublisher, tmp_path: Path
) -> None:
    short, long, late = backend.put_job(spec(40)), backend.put_job(spec(900)), backend.put_job(spec(3))
    with started(backend, tmp_path, fake_step_s=0.01, drain_grace_s=1.5) as child:
        tickets.send(short, MODEL)
        tickets.send(long, MODEL)
        backend.wait_for_tokens(long, 3)

        child.terminate()

        wait_until(lambda: child.status() is WorkerStatus.DRAINING)
        tickets.send(late, MODEL)
        assert child.wait(10.0) == 0, child.log
    assert backend.row(late).attempt == 0
    assert backend.row(short).status is JobStatus.COMPLETED
    assert (backend.row(long).status, backend.row(long).lost_attempts) == (JobStatus.QUEUED, 0)
    assert queue_length(backend.redis, MODEL) == 2
    assert not backend.redis.hlen("unacked")
    num_entries = len(tokens_of(backend.log(long)))
    assert num_entries > 40

    with started(backend, tmp_path):
        _wait_for_all(backend, [long, late])
    assert_whole(backend.log(long), records.result_of(backend.row(long)))
    assert text_of(backend.log(long)) == foretold(900)


def test_a_second_signal_ends_the_grace_period(backend: Backend, tickets: TicketPublisher, tmp_path: Path) -> None:
    job_id = backend.put_job(spec(2000))
    with started(backend, tmp_path, fake_step_s=0.01, drain_grace_s=60) as child:
        tickets.send(job_id, MODEL)
        backend.wait_for_tokens(job_id, 3)

        child.terminate()
        wait_until(lambda: child.status() is WorkerStatus.DRAINING)
        child.terminate()

        assert child.wait(5.0) == 0, child.log
    assert backend.row(job_id).status is JobStatus.QUEUED


def test_lost_tickets_are_sent_again(backend: Backend, tickets: TicketPublisher, tmp_path: Path) -> None:
    job_ids = [backend.put_job(spec(5, salt=salt)) for salt in range(40)]
    for job_id in job_ids:
        tickets.send(job_id, MODEL)
    wait_until(lambda: queue_length(backend.redis, MODEL) == len(job_ids))
    backend.redis.flushall()

    with started(backend, tmp_path), sweeping(backend, tickets):
        _wait_for_all(backend, job_ids)

    assert {backend.row(job_id).attempt for job_id in job_ids} == {1}


def test_a_redis_that_dies_and_comes_back_costs_nothing(sqlite_url: str, tmp_path: Path) -> None:
    with running_redis(keeps_data=True) as server:
        backend = Backend(sqlite_url, server.url)
        job_ids = [backend.put_job(spec(150, salt=salt)) for salt in range(10)]
        later, patient = backend.put_job(spec(5)), backend.put_job(_patient(5))
        with started(backend, tmp_path, fake_step_s=0.01), tickets_to(backend) as tickets, sweeping(backend, tickets):
            for job_id in job_ids:
                tickets.send(job_id, MODEL)
            for job_id in job_ids:
                backend.wait_for_tokens(job_id, 3)

            server.kill()
            server.start()

            _wait_for_all(backend, job_ids)
            tickets.send(later, MODEL)
            tickets.send(patient, MODEL, PriorityQueue.BACK)
            _wait_for_all(backend, [later, patient])
            wait_until(lambda: not backend.redis.hlen("unacked"))
        for salt, job_id in enumerate(job_ids):
            assert_whole(backend.log(job_id), records.result_of(backend.row(job_id)))
            assert text_of(backend.log(job_id)) == foretold(150, salt=salt)
        backend.close()


def test_a_worker_without_its_model_ends_with_a_clear_line(backend: Backend, tmp_path: Path) -> None:
    with starting(backend, tmp_path, fake_is_broken=True, log_format="json") as child:
        assert child.wait(30.0) == 1
        assert "no such weights" in child.log
        assert child.status() is WorkerStatus.DEAD


def test_a_signal_ends_a_worker_that_still_loads(backend: Backend, tmp_path: Path) -> None:
    with starting(backend, tmp_path, fake_load_s=60) as child:
        wait_until(lambda: child.status() is WorkerStatus.LOADING, 30.0)

        child.terminate()

        assert child.wait(10.0) == 0
        assert child.status() is WorkerStatus.DEAD


def test_a_worker_that_ends_while_redis_is_away_still_gives_its_jobs_back(sqlite_url: str, tmp_path: Path) -> None:
    with running_redis() as server:
        backend = Backend(sqlite_url, server.url)
        job_id = backend.put_job(spec(1500))
        with started(backend, tmp_path, fake_step_s=0.01, drain_grace_s=0.1) as child, tickets_to(backend) as tickets:
            tickets.send(job_id, MODEL)
            backend.wait_for_tokens(job_id, 3)
            server.kill()

            child.terminate()

            assert child.wait(20.0) == 0, child.log
        assert (backend.row(job_id).status, backend.row(job_id).lost_attempts) == (JobStatus.QUEUED, 0)
        backend.close()


def test_a_worker_whose_engine_breaks_ends_with_a_failure(
    backend: Backend, tickets: TicketPublisher, tmp_path: Path
) -> None:
    job_id = backend.put_job(bad_spec(BREAKS_STEP))
    with started(backend, tmp_path, fake_is_unusable=True) as child:
        tickets.send(job_id, MODEL)

        assert child.wait(10.0) == 1, child.log
        assert child.status() is WorkerStatus.DEAD
    assert backend.row(job_id).status is JobStatus.QUEUED


def test_the_cpu_worker_sweeps(backend: Backend, tmp_path: Path) -> None:
    job_id = backend.put_job(spec(3))
    settings = {"ticket_slack_s": 0.2, "log_format": "json"}
    with starting(backend, tmp_path, command=["workers.cpu"], **settings) as child:
        wait_until(lambda: queue_length(backend.redis, MODEL) == 1, 30.0)

        child.terminate()

        assert child.wait(30.0) == 0, child.log
        assert "sweeper_duty" in events_of(child.log)
    assert backend.row(job_id).attempt == 0


def test_a_worker_outlives_a_full_redis(backend: Backend, tickets: TicketPublisher, tmp_path: Path) -> None:
    running = backend.put_job(spec(300))
    with started(backend, tmp_path, fake_step_s=0.005, max_running=2, lookahead=1) as child, sweeping(backend, tickets):
        tickets.send(running, MODEL)
        backend.wait_for_tokens(running, 5)
        child.process.send_signal(signal.SIGSTOP)
        waiting = [backend.put_job(spec(5)) for _ in range(5)]
        for job_id in waiting:
            tickets.send(job_id, MODEL)
        wait_until(lambda: queue_length(backend.redis, MODEL) >= 5)

        backend.redis.config_resetstat()
        backend.redis.config_set("maxmemory", "1")
        try:
            # Neither tokens nor the tickets that it takes can be written.
            child.process.send_signal(signal.SIGCONT)
            wait_until(lambda: backend.redis.info("errorstats").get("errorstat_OOM", {}).get("count", 0) > 10, 20.0)
            tickets.send(late := backend.put_job(spec(5)), MODEL)
        finally:
            backend.redis.config_set("maxmemory", "0")

        _wait_for_all(backend, [running, *waiting, late])
        assert child.process.poll() is None, child.log
        assert_whole(backend.log(running), records.result_of(backend.row(running)))
        assert text_of(backend.log(running)) == foretold(300)
