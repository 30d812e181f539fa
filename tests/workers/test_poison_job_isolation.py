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
from tests.workers.harness import Bench, Ground, running, text_of
from workers.engine.runner import StepOutput
from workers.generation.poison_job_isolation import Quarantine
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
    """A model that computes nothing near a suspect's end before its lost attempts are forgiven."""

    def __init__(self, ground: Ground) -> None:
        super().__init__()
        self._ground = ground
        self._forgiven: set[str] = set()

    def collect(self) -> StepOutput:
        for part in self.under_way[0]:
            job_id = part.chunk.sequence_id.split(":")[0]
            if part.chunk.end - part.chunk.num_prompt >= 150 and job_id not in self._forgiven:
                self._wait_for_acquittal(job_id)
                self._forgiven.add(job_id)
        return super().collect()

    def _wait_for_acquittal(self, job_id: str) -> None:
        wait_until(lambda: self._ground.row(job_id).lost_attempts == 0, 10.0, "an acquittal")


class Fleet:
    """Workers one after the other, each begun when the last one has ended hard, and the sweeper between them."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self.cure = threading.Event()
        self.benches: list[Bench] = []
        self._writer = Writer(ground.database)
        self._writer.start()
        self._tickets = FakeQueue()
        settings = SweeperSettings(worker_id=ids.new_id("cpu_"), settling_s=5.0, ticket_slack_s=60)
        self._sweeper = Sweeper(settings, ground.settings, ground.database, self._writer, ground.redis, self._tickets)

    def run(self, job_ids: list[str], *, max_crashes: int) -> None:
        """Return when all jobs have ended."""
        waiting = list(job_ids)
        for _ in range(max_crashes + 1):
            bench = Bench(self.ground, runner=PoisonedRunner(self.cure), watchdog_s=0.6)
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
        return all(self.ground.row(job_id).status.is_terminal for job_id in job_ids)

    def stop(self) -> None:
        self.cure.set()
        for bench in self.benches:
            bench.stop()
        self._writer.stop()


@pytest.fixture
def fleet(ground: Ground) -> Iterator[Fleet]:
    made = Fleet(ground)
    yield made
    made.stop()


def test_a_poison_job_fails_after_three_workers_and_its_neighbours_survive(ground: Ground, fleet: Fleet) -> None:
    neighbours = [ground.put_job(spec(60, salt=salt)) for salt in range(4)]
    poison = ground.put_job(bad_spec(POISON))

    fleet.run([*neighbours, poison], max_crashes=4)

    assert len([bench for bench in fleet.benches if bench.exit_codes]) == 3
    row = ground.row(poison)
    assert (row.status, (row.failure or {})["code"], row.lost_attempts) == (JobStatus.FAILED, "worker_lost", 3)
    for salt, job_id in enumerate(neighbours):
        assert ground.row(job_id).status is JobStatus.COMPLETED
        assert text_of(ground.log(job_id)) == foretold(60, salt=salt)


def test_suspects_are_acquitted_one_by_one_and_new_jobs_get_their_turn(ground: Ground) -> None:
    suspected = [ground.put_job(spec(200, salt=salt)) for salt in range(3)]
    for job_id in suspected:
        ground.lose(job_id, times=2)

    with running(ground, runner=PatientRunner(ground)) as bench:
        tickets = [bench.submit(job_id) for job_id in (*suspected, ground.put_job(spec(5)))]
        wait_until(lambda: all(ticket.answers == ["acknowledged"] for ticket in tickets), 20.0)

    for salt, job_id in enumerate(suspected):
        row = ground.row(job_id)
        assert (row.status, row.lost_attempts) == (JobStatus.COMPLETED, 0)
        assert text_of(ground.log(job_id)) == foretold(200, salt=salt)


def test_a_worker_that_drains_gives_waiting_suspects_back_at_once(ground: Ground) -> None:
    cure = threading.Event()
    bench = Bench(ground, runner=PoisonedRunner(cure))
    bench.process.start(lambda: None)
    hanging, suspect, fresh = ground.put_job(bad_spec(POISON)), ground.put_job(spec(5)), ground.put_job(spec(5))
    ground.lose(suspect, times=2)
    first = bench.submit(hanging)
    ground.wait_for_status(hanging, JobStatus.IN_PROGRESS)
    tickets = [bench.submit(suspect)]
    wait_until(lambda: bench.process._dispatcher._quarantine.is_active)
    tickets.append(bench.submit(fresh))
    bench.hub.call_soon(bench.process.drain)

    wait_until(lambda: all(ticket.answers == ["given back"] for ticket in tickets))

    assert first.answers == []
    assert ground.row(suspect).lost_attempts == 2
    cure.set()
    bench.stop()


class Model:
    """What a quarantine decided, and whom it had among the jobs."""

    def __init__(self) -> None:
        self.unproven: set[str] = set()
        self.on_trial: str | None = None
        self.begun: list[str] = []
        self.quarantine = Quarantine(self.begin, self.has_unproven)

    def has_unproven(self, waiting: Collection[str]) -> bool:
        return bool(self.unproven - set(waiting))

    def begin(self, job_id: str, is_on_trial: bool) -> None:
        # The promise: nobody begins beside a trial, and no trial beside somebody unproven.
        assert self.on_trial is None
        if is_on_trial:
            assert not self.unproven
            self.on_trial = job_id
        self.unproven.add(job_id)
        self.begun.append(job_id)

    def arrive(self, job_id: str, is_suspect: bool) -> None:
        if is_suspect:
            self.quarantine.add(job_id)
        elif self.quarantine.is_active:
            self.quarantine.hold(job_id)
        else:
            self.begin(job_id, False)

    def prove(self, leave: Callable[[str], None]) -> None:
        if self.unproven:
            job_id = sorted(self.unproven)[0]
            self.unproven.remove(job_id)
            if self.on_trial == job_id:
                self.on_trial = None
                leave(job_id)
            else:
                self.quarantine.advance()


@given(st.lists(st.sampled_from(["job", "suspect", "proof", "end"]), max_size=40))
def test_in_any_order_nobody_begins_beside_a_suspect_and_everybody_begins_in_the_end(acts: list[str]) -> None:
    model = Model()
    arrived = []
    for number, act in enumerate([*acts, *["proof"] * 200]):
        match act:
            case "job" | "suspect":
                arrived.append(f"{number:03}")
                model.arrive(arrived[-1], act == "suspect")
            case "proof":
                model.prove(model.quarantine.end_trial)
            case _:
                model.prove(model.quarantine.forget)

    assert sorted(model.begun) == arrived
    assert not model.quarantine.is_active
