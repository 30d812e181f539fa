"""A job that kills its workers, and the neighbours that it takes with it."""

import threading
from collections.abc import Callable, Collection, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage import ids
from storage.contract import JobStatus
from storage.database.group_commit import Writer
from tests.fakes import FakePart, FakeQueue, FakeRunner, bad_spec, foretold, spec
from tests.waiting import wait_until
from tests.workers.harness import Backend, Bench, running, text_of
from workers.engine.runner import StepOutput
from workers.generation.pipeline.poison_job_isolation import PoisonJobIsolation
from workers.maintenance.sweeper import Sweeper
from workers.settings import SweeperSettings

POISON = 99


class PoisonedRunner(FakeRunner):
    """A model that hangs in a step that has a poisoned prompt in it."""

    def __init__(self, cure: threading.Event) -> None:
        super().__init__(step_s=0.002)
        self.cure = cure
        self.num_batches_with_poison: list[int] = []

    def collect(self) -> StepOutput:
        parts: list[FakePart] = self.under_way[0]
        if any(part.chunk.tokens[3] == POISON for part in parts):
            self.num_batches_with_poison.append(len(parts))
            self.cure.wait()
        return super().collect()


class PatientRunner(FakeRunner):
    """A model that computes nothing near the end of an isolated job before its lost attempts are forgiven."""

    def __init__(self, backend: Backend) -> None:
        super().__init__()
        self._ground = backend
        self._forgiven: set[str] = set()

    def collect(self) -> StepOutput:
        for part in self.under_way[0]:
            job_id = part.chunk.sequence_id.split(":")[0]
            if part.chunk.end - part.chunk.num_prompt >= 150 and job_id not in self._forgiven:
                self._wait_for_reset(job_id)
                self._forgiven.add(job_id)
        return super().collect()

    def _wait_for_reset(self, job_id: str) -> None:
        wait_until(lambda: self._ground.row(job_id).lost_attempts == 0, 10.0, "a reset of lost attempts")


class Fleet:
    """Workers one after the other, each begun when the last one has ended hard, and the sweeper between them."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.cure = threading.Event()
        self.benches: list[Bench] = []
        self._writer = Writer(backend.database)
        self._writer.start()
        self._tickets = FakeQueue()
        settings = SweeperSettings(worker_id=ids.new_id("cpu_"), settling_s=5.0, ticket_slack_s=60)
        self._sweeper = Sweeper(
            settings, backend.settings, backend.database, self._writer, backend.redis, self._tickets
        )

    def run(self, job_ids: list[str], *, max_crashes: int) -> None:
        """Return when all jobs have ended."""
        waiting = list(job_ids)
        for _ in range(max_crashes + 1):
            bench = Bench(self.backend, runner=PoisonedRunner(self.cure), watchdog_s=0.6)
            self.benches.append(bench)
            bench.process.start(lambda: None)
            for job_id in waiting:
                bench.submit(job_id)

            def is_over(bench: Bench = bench) -> bool:
                return bool(bench.exit_codes) or self.are_ended(job_ids)

            wait_until(is_over, 20.0, "the end of the worker or of all jobs")
            self._sweeper.sweep()
            if self.are_ended(job_ids):
                return
            waiting = [job_id for job_id, _ in self._tickets.sent]
            self._tickets.sent.clear()
        raise AssertionError("too many crashes")

    def are_ended(self, job_ids: list[str]) -> bool:
        return all(self.backend.row(job_id).status.is_terminal for job_id in job_ids)

    def stop(self) -> None:
        self.cure.set()
        for bench in self.benches:
            bench.stop()
        self._writer.stop()


@pytest.fixture
def fleet(backend: Backend) -> Iterator[Fleet]:
    made = Fleet(backend)
    yield made
    made.stop()


def test_a_poison_job_fails_after_three_workers_and_its_neighbours_survive(backend: Backend, fleet: Fleet) -> None:
    neighbours = [backend.put_job(spec(60, salt=salt)) for salt in range(4)]
    poison = backend.put_job(bad_spec(POISON))

    fleet.run([*neighbours, poison], max_crashes=4)

    assert len([bench for bench in fleet.benches if bench.exit_codes]) == 3
    row = backend.row(poison)
    assert (row.status, (row.failure or {})["code"], row.lost_attempts) == (JobStatus.FAILED, "worker_lost", 3)
    for salt, job_id in enumerate(neighbours):
        assert backend.row(job_id).status is JobStatus.COMPLETED
        assert text_of(backend.log(job_id)) == foretold(60, salt=salt)


def test_possible_poison_jobs_run_isolated_one_by_one_and_new_jobs_run_between_them(backend: Backend) -> None:
    isolated = [backend.put_job(spec(200, salt=salt)) for salt in range(3)]
    for job_id in isolated:
        backend.lose(job_id, times=2)

    with running(backend, runner=PatientRunner(backend)) as bench:
        tickets = [bench.submit(job_id) for job_id in (*isolated, backend.put_job(spec(5)))]
        wait_until(lambda: all(ticket.answers == ["acknowledged"] for ticket in tickets), 20.0)

    for salt, job_id in enumerate(isolated):
        row = backend.row(job_id)
        assert (row.status, row.lost_attempts) == (JobStatus.COMPLETED, 0)
        assert text_of(backend.log(job_id)) == foretold(200, salt=salt)


def test_a_worker_that_drains_gives_jobs_that_wait_for_isolation_back_at_once(backend: Backend) -> None:
    cure = threading.Event()
    bench = Bench(backend, runner=PoisonedRunner(cure))
    bench.process.start(lambda: None)
    hanging, isolated, fresh = backend.put_job(bad_spec(POISON)), backend.put_job(spec(5)), backend.put_job(spec(5))
    backend.lose(isolated, times=2)
    first = bench.submit(hanging)
    backend.wait_for_status(hanging, JobStatus.IN_PROGRESS)
    tickets = [bench.submit(isolated)]
    wait_until(lambda: bench.process._pipeline._intake.watches)
    tickets.append(bench.submit(fresh))
    bench.event_loop.call_soon(bench.process.drain)

    wait_until(lambda: all(ticket.answers == ["given back"] for ticket in tickets))

    assert first.answers == []
    assert backend.row(isolated).lost_attempts == 2
    cure.set()
    bench.stop()


class Model:
    """What the isolation decided, and which jobs it had."""

    def __init__(self) -> None:
        self.unvalidated: set[str] = set()
        self.isolated: str | None = None
        self.begun: list[str] = []
        self.isolation = PoisonJobIsolation(self.begin, self.has_unvalidated)

    def has_unvalidated(self, waiting: Collection[str]) -> bool:
        return bool(self.unvalidated - set(waiting))

    def begin(self, job_id: str, is_isolated: bool) -> None:
        # No job begins beside an isolated job, and no isolated job beside one that is not validated.
        assert self.isolated is None
        if is_isolated:
            assert not self.unvalidated
            self.isolated = job_id
        self.unvalidated.add(job_id)
        self.begun.append(job_id)

    def arrive(self, job_id: str, needs_isolation: bool) -> None:
        if needs_isolation:
            self.isolation.add(job_id)
        elif self.isolation.is_active:
            self.isolation.hold(job_id)
        else:
            self.begin(job_id, False)

    def validate(self, leave: Callable[[str], None]) -> None:
        if self.unvalidated:
            job_id = sorted(self.unvalidated)[0]
            self.unvalidated.remove(job_id)
            if self.isolated == job_id:
                self.isolated = None
                leave(job_id)
            else:
                self.isolation.advance()


@given(st.lists(st.sampled_from(["job", "isolated job", "proof", "end"]), max_size=40))
def test_in_any_order_no_job_begins_beside_an_isolated_one_and_every_job_begins_in_the_end(acts: list[str]) -> None:
    model = Model()
    arrived = []
    for number, act in enumerate([*acts, *["proof"] * 200]):
        match act:
            case "job" | "isolated job":
                arrived.append(f"{number:03}")
                model.arrive(arrived[-1], act == "isolated job")
            case "proof":
                model.validate(model.isolation.end_isolation)
            case _:
                model.validate(model.isolation.forget)

    assert sorted(model.begun) == arrived
    assert not model.isolation.is_active
