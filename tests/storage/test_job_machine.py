"""Random histories of one job, beside a model of it in plain Python."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from hypothesis.strategies import integers, sampled_from
from sqlalchemy import select

from storage.contract import Failure, JobStatus, Result, TokenEvent, Usage
from storage.database.connections import Database
from storage.database.table_definitions import table_of
from storage.jobs import attaching, jobs, records, recovery
from storage.jobs.transitions import LEGAL
from storage.webhooks.tables import WebhookEvent
from tests.storage.examples import after, put_endpoint, put_job, put_worker

_event = table_of(WebhookEvent)
MAX_LOST = 3
WORKERS = ("w1", "w2")
FAILURE = Failure(code="numerical_error", message="no number")


def _result(attempt: int) -> Result:
    """A result that tells who wrote it."""
    return Result(entries=((TokenEvent(choice=0, token_ids=(attempt,), text=str(attempt)),),))


class JobMachine(RuleBasedStateMachine):
    """Workers, zombies, owners and the sweeper act on a job in any order; only the legal acts may count."""

    database: ClassVar[Database]

    @initialize()
    def begin(self) -> None:
        self._transaction = self.database.begin()
        self.c = self._transaction.__enter__()
        for worker_id in WORKERS:
            put_worker(self.c, worker_id)
        put_endpoint(self.c)
        self.job_id = put_job(self.c)
        self.status, self.attempt, self.lost = JobStatus.QUEUED, 0, 0
        self.worker_id: str | None = None
        self.written_by: int | None = None
        self.num_attached = 0
        self.time = 0

    def teardown(self) -> None:
        if hasattr(self, "_transaction"):
            recovery.erase_many(self.c, [self.job_id])
            self._transaction.__exit__(None, None, None)

    def _now(self) -> int:
        self.time += 1
        return self.time

    def _move(self, target: JobStatus) -> None:
        assert target in LEGAL[self.status]
        self.status = target

    def _is_own(self, attempt: int) -> bool:
        return self.status is JobStatus.IN_PROGRESS and attempt == self.attempt

    @rule(worker_id=sampled_from(WORKERS))
    def claim(self, worker_id: str) -> None:
        claim = jobs.claim(self.c, self.job_id, worker_id, after(self._now()))
        assert (claim is not None) == (self.status is JobStatus.QUEUED)
        if claim is not None:
            self._move(JobStatus.IN_PROGRESS)
            self.attempt, self.worker_id = self.attempt + 1, worker_id
            assert claim.attempt == self.attempt

    @rule(back=integers(0, 2), status=sampled_from([JobStatus.COMPLETED, JobStatus.INCOMPLETE]))
    def complete(self, back: int, status: JobStatus) -> None:
        attempt = self.attempt - back
        usage = Usage(prompt_tokens=1, completion_tokens=attempt)
        done = jobs.complete(
            self.c, self.job_id, attempt, status=status, result=_result(attempt), usage=usage, now=after(self._now())
        )
        assert done == self._is_own(attempt)
        if done:
            self._move(status)
            self.written_by = attempt

    @rule(back=integers(0, 2))
    def fail(self, back: int) -> None:
        attempt = self.attempt - back
        done = jobs.fail(self.c, self.job_id, attempt, FAILURE, _result(attempt), None, after(self._now()))
        assert done == self._is_own(attempt)
        if done:
            self._move(JobStatus.FAILED)
            self.written_by = attempt

    @rule(back=integers(0, 2))
    def drain(self, back: int) -> None:
        attempt = self.attempt - back
        done = jobs.requeue(self.c, self.job_id, attempt)
        assert done == self._is_own(attempt)
        if done:
            self._move(JobStatus.QUEUED)
            self.worker_id = None

    @rule()
    def cancel(self) -> None:
        cancelled = jobs.cancel(self.c, self.job_id, after(self._now()))
        assert (cancelled is None) == self.status.is_terminal
        if cancelled is not None:
            assert cancelled == jobs.Cancelled(was=self.status, worker_id=self.worker_id, attempt=self.attempt)
            self._move(JobStatus.CANCELLED)

    @rule()
    def join(self) -> None:
        number = attaching.attach(self.c, self.job_id)
        assert (number is None) == (self.status is JobStatus.CANCELLED)
        if number is not None:
            self.num_attached += 1
            assert number == self.num_attached

    @rule(back=integers(0, 2))
    def leave(self, back: int) -> None:
        number = self.num_attached - back
        cancelled = jobs.cancel(self.c, self.job_id, after(self._now()), num_attached=number)
        assert (cancelled is not None) == (back == 0 and not self.status.is_terminal)
        if cancelled is not None:
            self._move(JobStatus.CANCELLED)

    @rule(back=integers(0, 2))
    def settle(self, back: int) -> None:
        attempt = self.attempt - back
        done = jobs.settle_stopped(self.c, self.job_id, attempt, _result(attempt), None)
        is_stopped = self.status is JobStatus.CANCELLED or (self.status is JobStatus.FAILED and self.written_by is None)
        assert done == (is_stopped and attempt == self.attempt)
        if done:
            self.written_by = attempt

    @rule(back=integers(0, 2))
    def settle_orphan(self, back: int) -> None:
        attempt = self.attempt - back
        done = jobs.settle_orphan(self.c, self.job_id, attempt, _result(attempt), None)
        is_ended = self.status in (JobStatus.CANCELLED, JobStatus.FAILED)
        assert done == (is_ended and attempt == self.attempt and self.written_by is None)
        if done:
            self.written_by, self.attempt = attempt, attempt + 1

    @rule(worker_id=sampled_from(WORKERS))
    def sweep(self, worker_id: str) -> None:
        recovered = recovery.requeue_of_dead_workers(
            self.c, [worker_id], max_lost_attempts=MAX_LOST, now=after(self._now())
        )
        is_hit = self.status is JobStatus.IN_PROGRESS and self.worker_id == worker_id
        assert len(recovered.tickets) + len(recovered.failed) == is_hit
        if is_hit:
            self.lost += 1
            assert bool(recovered.failed) == (self.lost >= MAX_LOST)
            self._move(JobStatus.FAILED if recovered.failed else JobStatus.QUEUED)
            self.worker_id = None if recovered.tickets else self.worker_id

    @invariant()
    def the_row_is_what_the_model_says(self) -> None:
        if not hasattr(self, "_transaction"):
            return
        job = jobs.find(self.c, self.job_id)
        assert job is not None
        assert (job.status, job.attempt, job.worker_id) == (self.status, self.attempt, self.worker_id)
        assert job.lost_attempts == self.lost
        assert records.result_of(job) == (Result() if self.written_by is None else _result(self.written_by))
        assert (job.ended_at is not None) == (job.erase_at is not None) == self.status.is_terminal

    @invariant()
    def its_end_is_reported_once(self) -> None:
        if not hasattr(self, "_transaction"):
            return
        events = self.c.execute(select(_event.c.type).where(_event.c.job_id == self.job_id)).scalars().all()
        assert events == ([f"chat.completion.{self.status}"] if self.status.is_terminal else [])


@pytest.fixture(scope="module", autouse=True)
def _database(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    path = tmp_path_factory.mktemp("machine") / "x.db"
    shutil.copyfile(sqlite_template, path)
    JobMachine.database = Database(f"sqlite:///{path}")
    yield
    JobMachine.database.dispose()


TestJobMachine = JobMachine.TestCase
TestJobMachine.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
