"""What a worker registers, and what becomes of jobs that an earlier process left under its id."""

import pytest

from storage.contract import JobStatus, WorkerStatus
from storage.database.group_commit import Writer
from storage.fleet import workers
from tests.fakes import spec
from tests.workers.harness import MODEL, Backend
from workers.generation.registry import Registry


@pytest.fixture
def registry(writer: Writer) -> Registry:
    """A process that starts under a pinned id."""
    return Registry(writer, worker_id="pinned", model=MODEL, slots=4)


def test_jobs_of_a_previous_process_with_the_same_id_have_lost_an_attempt(backend: Backend, registry: Registry) -> None:
    job_id = backend.put_job(spec(3))
    backend.claim(job_id, "pinned")

    tickets = registry.announce(3)

    row = backend.row(job_id)
    assert (row.status, row.lost_attempts, row.worker_id) == (JobStatus.QUEUED, 1, None)
    # Nobody else sends them at once: to the sweeper the job is like any other that waits.
    assert [(ticket.job_id, ticket.model) for ticket in tickets] == [(job_id, MODEL)]
    assert registry.announce(3) == []


def test_a_poison_job_ends_though_its_worker_keeps_its_id(backend: Backend, registry: Registry) -> None:
    job_id = backend.put_job(spec(3))
    for _ in range(3):
        backend.claim(job_id, "pinned")
        registry.announce(3)

    row = backend.row(job_id)
    assert row.status is JobStatus.FAILED
    assert row.lost_attempts == 3


def test_jobs_of_other_workers_go_on(backend: Backend, writer: Writer, registry: Registry) -> None:
    Registry(writer, worker_id="other", model=MODEL, slots=4).announce(3)
    job_id = backend.put_job(spec(3))
    backend.claim(job_id, "other")

    registry.announce(3)

    assert backend.row(job_id).status is JobStatus.IN_PROGRESS


def test_a_beat_after_a_failure_does_not_bring_the_worker_back(backend: Backend, registry: Registry) -> None:
    registry.announce(3)

    registry.failed("no weights")
    registry.beat(0, None, 0)

    with backend.database.connect() as connection:
        row = workers.find(connection, "pinned")
        failures = workers.list_failures(connection)
    assert row is not None
    assert row.status is WorkerStatus.DEAD
    assert failures[MODEL].reason == "no weights"
