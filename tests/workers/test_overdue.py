"""Jobs whose time is over, as their workers and readers see them."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from storage import ids
from storage.contract import JobStatus
from storage.database.group_commit import Writer
from storage.database.table_definitions import table_of
from storage.jobs import records
from storage.jobs.tables import Job
from tests.fakes import FakeQueue, FakeRunner, foretold, spec
from tests.waiting import wait_until
from tests.workers.harness import Backend, assert_whole, running, text_of, wait_for_answer
from workers.maintenance.sweeper import Sweeper
from workers.settings import SweeperSettings


@pytest.fixture
def sweeper(backend: Backend) -> Iterator[Sweeper]:
    writer = Writer(backend.database)
    writer.start()
    settings = SweeperSettings(worker_id=ids.new_id("cpu_"), settling_s=1.0, unserved_after_s=0.0)
    yield Sweeper(settings, backend.settings, backend.database, writer, backend.redis, FakeQueue())
    writer.stop()


def _let_pass(backend: Backend, job_id: str, deadline: str) -> None:
    table = table_of(Job)
    past = datetime.now(UTC) - timedelta(seconds=1)
    with backend.database.begin() as connection:
        connection.execute(update(table).where(table.c.id == job_id).values({deadline: past}))


@pytest.mark.parametrize(
    ("deadline", "status", "code"),
    [("expires_at", JobStatus.FAILED, "expired"), ("cancel_at", JobStatus.CANCELLED, None)],
)
def test_a_running_job_that_is_overdue_stops_and_keeps_its_text(
    backend: Backend, sweeper: Sweeper, deadline: str, status: JobStatus, code: str | None
) -> None:
    with running(backend, runner=FakeRunner(step_s=0.01)) as bench:
        job_id = backend.put_job(spec(1500))
        ticket = bench.submit(job_id)
        backend.wait_for_tokens(job_id, 5)

        _let_pass(backend, job_id, deadline)
        sweeper.sweep()

        assert wait_for_answer(ticket, timeout_s=3.0) == "acknowledged"
    row, log = backend.row(job_id), backend.log(job_id)
    assert (row.status, (row.failure or {}).get("code")) == (status, code)
    assert_whole(log, records.result_of(row))
    assert log[-1].end == records.end_of(row)
    assert len(text_of(log)) > 0
    assert foretold(1500).startswith(text_of(log))
    assert row.completion_tokens


def test_a_queued_job_that_is_overdue_never_runs(backend: Backend, sweeper: Sweeper) -> None:
    with running(backend) as bench:
        job_id = backend.put_job(spec(5))
        _let_pass(backend, job_id, "expires_at")

        assert wait_for_answer(bench.submit(job_id)) == "acknowledged"
        assert backend.row(job_id).status is JobStatus.QUEUED
        sweeper.sweep()

    row = backend.row(job_id)
    assert (row.status, (row.failure or {})["code"]) == (JobStatus.FAILED, "expired")
    assert backend.log(job_id)[-1].end == records.end_of(row)
    assert row.result is not None


def test_an_overdue_job_of_a_dead_worker_is_settled_from_its_log(backend: Backend, sweeper: Sweeper) -> None:
    with running(backend, runner=FakeRunner(step_s=0.01)) as bench:
        job_id = backend.put_job(spec(1500))
        ticket = bench.submit(job_id)
        backend.wait_for_tokens(job_id, 5)
    assert wait_for_answer(ticket) == "given back"
    backend.claim(job_id, "dead")
    _let_pass(backend, job_id, "expires_at")

    sweeper.sweep()
    wait_until(lambda: sweeper.sweep() or backend.is_closed(job_id), 5.0, "the end of the log")

    row, log = backend.row(job_id), backend.log(job_id)
    assert (row.failure or {})["code"] == "expired"
    assert len(records.result_of(row).entries) >= 5
    assert log[-1].end == records.end_of(row)


def test_a_job_whose_model_nobody_serves_fails_and_says_so(backend: Backend, sweeper: Sweeper) -> None:
    job_id = backend.put_job(spec(5))

    sweeper.sweep()

    row = backend.row(job_id)
    assert (row.status, (row.failure or {})["code"]) == (JobStatus.FAILED, "model_unavailable")
    assert backend.log(job_id)[-1].end == records.end_of(row)
