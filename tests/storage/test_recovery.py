"""What the sweeper finds: lost tickets, jobs of dead workers, jobs whose time is over."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from msgspec import structs
from sqlalchemy import Connection, text

from storage.contract import JobStatus, PriorityQueue, Result
from storage.database.connections import Database
from storage.fleet import workers
from storage.jobs import jobs, poison_jobs, records, recovery
from tests.storage.examples import NOW, RESULT, SPEC, USAGE, after, put_job, put_worker


@pytest.fixture
def c(database: Database) -> Iterator[Connection]:
    with database.begin() as connection:
        yield connection


def _running(c: Connection, worker_id: str, **changes: Any) -> str:
    job_id = put_job(c, **changes)
    assert jobs.claim(c, job_id, worker_id, NOW)
    return job_id


def _recover(c: Connection, *dead: str, limit: int = 500) -> recovery.Recovered:
    return recovery.requeue_of_dead_workers(c, dead, max_lost_attempts=3, now=after(60), limit=limit)


def _ids(recovered: recovery.Recovered) -> set[str]:
    return {ticket.job_id for ticket in recovered.tickets}


def test_jobs_of_dead_workers_are_queued_again_and_others_run_on(c: Connection) -> None:
    for worker_id in ("silent", "marked", "alive"):
        put_worker(c, worker_id)
    workers.mark_dead(c, "marked")
    silent, marked, alive = (_running(c, worker_id) for worker_id in ("silent", "marked", "alive"))
    forgotten = _running(c, "forgotten")

    recovered = _recover(c, "silent")

    assert _ids(recovered) == {silent, marked, forgotten}
    assert recovered.failed == []
    assert {ticket.model for ticket in recovered.tickets} == {"demo"}
    job = jobs.get(c, silent, "alice")
    assert (job.status, job.worker_id, job.lost_attempts, job.attempt) == (JobStatus.QUEUED, None, 1, 1)
    assert job.sent_at != NOW
    assert jobs.get(c, alive, "alice").status is JobStatus.IN_PROGRESS
    assert _recover(c, "silent") == recovery.Recovered(tickets=[], failed=[])


def test_a_job_that_lost_three_workers_fails(c: Connection) -> None:
    job_id = put_job(c)
    for attempt in (1, 2):
        assert jobs.claim(c, job_id, "gone", NOW)
        assert _ids(_recover(c)) == {job_id}, attempt
    assert jobs.claim(c, job_id, "gone", NOW)
    recovered = _recover(c)

    assert recovered.tickets == []
    assert recovered.failed == [jobs.JobState(job_id=job_id, attempt=3, status=JobStatus.FAILED, worker_id="gone")]
    job = jobs.get(c, job_id, "alice")
    assert (job.lost_attempts, job.ended_at) == (3, after(60))
    end = records.end_of(job)
    assert end is not None
    assert end.failure == recovery.WORKER_LOST
    assert job.erase_at is not None
    # Its log may still hold a partial text.
    assert jobs.settle_orphan(c, job_id, 3, RESULT, USAGE)


def test_drains_do_not_count_as_lost(c: Connection) -> None:
    job_id = put_job(c)
    for _ in range(5):
        claim = jobs.claim(c, job_id, "w1", NOW)
        assert claim is not None
        assert jobs.requeue(c, job_id, claim.attempt)
    assert jobs.claim(c, job_id, "gone", NOW)
    assert _ids(_recover(c)) == {job_id}


def test_ended_and_queued_jobs_of_a_dead_worker_stay_as_they_are(c: Connection) -> None:
    cancelled = _running(c, "gone")
    jobs.cancel(c, cancelled, NOW)
    put_job(c)
    assert _recover(c, "gone") == recovery.Recovered(tickets=[], failed=[])


def test_recovery_goes_in_batches(c: Connection) -> None:
    ids = {_running(c, "gone") for _ in range(5)}
    first = _ids(_recover(c, limit=3))
    second = _ids(_recover(c, limit=3))
    assert (len(first), len(second)) == (3, 2)
    assert first | second == ids


def _long_ago(seconds: float) -> datetime:
    """Before this moment by any clock, as the database's says it."""
    return after(seconds - 365 * 86400)


def test_lost_tickets_are_those_older_than_any_that_waits(c: Connection) -> None:
    lost = [put_job(c, created_at=_long_ago(number)) for number in range(3)]
    put_job(c, created_at=_long_ago(10))
    can_wait = put_job(c, spec=structs.replace(SPEC, priority=10), created_at=_long_ago(5))
    put_job(c, model="other")
    _running(c, "w1")

    assert sorted(recovery.list_queues(c)) == [
        ("demo", PriorityQueue.BACK),
        ("demo", PriorityQueue.FRONT),
        ("other", PriorityQueue.FRONT),
    ]
    found = recovery.list_lost_tickets(c, "demo", PriorityQueue.FRONT, _long_ago(10))
    assert [ticket.job_id for ticket in found] == lost
    assert [
        ticket.job_id for ticket in recovery.list_lost_tickets(c, "demo", PriorityQueue.FRONT, _long_ago(10), limit=1)
    ] == lost[:1]

    recovery.mark_sent(c, lost)
    assert recovery.list_lost_tickets(c, "demo", PriorityQueue.FRONT, _long_ago(10)) == []
    patient = recovery.Ticket(job_id=can_wait, model="demo", priority_queue=PriorityQueue.BACK)
    assert recovery.list_lost_tickets(c, "demo", PriorityQueue.BACK, _long_ago(10)) == [patient]
    recovery.mark_sent(c, [])


def test_tickets_sent_now_are_as_old_as_the_databases_clock_says(c: Connection) -> None:
    job_id = put_job(c, created_at=_long_ago(0))
    recovery.mark_sent(c, [job_id])

    now = recovery.database_now(c)
    assert recovery.list_lost_tickets(c, "demo", PriorityQueue.FRONT, now - timedelta(seconds=60)) == []
    found = recovery.list_lost_tickets(c, "demo", PriorityQueue.FRONT, now + timedelta(seconds=60))
    assert [ticket.job_id for ticket in found] == [job_id]


def test_jobs_are_moved_to_the_front_queue_from_the_back_queue_only(c: Connection) -> None:
    patient = structs.replace(SPEC, priority=10)
    waiting, running = put_job(c, spec=patient), put_job(c, spec=patient)
    front, urgent = put_job(c), put_job(c, spec=structs.replace(SPEC, priority=-10))
    assert jobs.claim(c, running, "w1", NOW)

    moved = recovery.move_to_front(c, [waiting, running, front, urgent])

    assert moved == [recovery.Ticket(job_id=waiting, model="demo", priority_queue=PriorityQueue.FRONT)]
    assert [jobs.get(c, job_id, "alice").priority_queue for job_id in (waiting, running, front, urgent)] == [
        PriorityQueue.FRONT,
        PriorityQueue.BACK,
        PriorityQueue.FRONT,
        PriorityQueue.PRIORITY,
    ]
    assert jobs.get(c, waiting, "alice").sent_at != NOW
    assert recovery.move_to_front(c, [waiting]) == []


def test_only_ended_jobs_whose_time_is_over_are_erased(c: Connection) -> None:
    over = [put_job(c, retention_s=seconds) for seconds in (20, 10)]
    kept = put_job(c, retention_s=1000)
    for job_id in [*over, kept]:
        jobs.cancel(c, job_id, NOW)
    unfinished = put_job(c, retention_s=0)

    assert recovery.list_erasable(c, after(100)) == over[::-1]
    assert recovery.list_erasable(c, after(100), limit=1) == [over[1]]
    # Long payloads make a page of few jobs.
    assert recovery.list_erasable(c, after(100), max_bytes=1) == [over[1]]
    assert recovery.erase_many(c, over) == 2
    assert recovery.erase_many(c, []) == 0
    assert recovery.list_erasable(c, after(100)) == []
    assert {job.id for job in jobs.list_all(c)} == {kept, unfinished}


def test_the_sweepers_questions_are_answered_by_their_indexes(sqlite_database: Database) -> None:
    questions = {
        "ix_job_queued": "SELECT id FROM job WHERE status = 'queued' AND served_model = '' AND priority_queue = ''",
        "ix_job_running": "SELECT id FROM job WHERE status = 'in_progress' AND worker_id = 'w'",
        "ix_job_stored_chat": "SELECT id FROM job WHERE kind = 'chat' AND store AND owner = 'o' ORDER BY id",
        "ix_job_unsettled": "SELECT id FROM job WHERE ended_at IS NOT NULL AND NOT has_result ORDER BY ended_at",
        "ix_job_erase_at": "SELECT id FROM job WHERE erase_at IS NOT NULL AND erase_at <= 'x' ORDER BY erase_at",
    }
    with sqlite_database.connect() as c:
        for index, question in questions.items():
            plan = " ".join(row.detail for row in c.execute(text(f"EXPLAIN QUERY PLAN {question}")))
            assert index in plan, plan


def test_ended_jobs_without_an_outcome_are_listed_until_somebody_stores_one(c: Connection) -> None:
    running, waiting = _running(c, "w1"), put_job(c)
    put_job(c)
    for number, job_id in enumerate((running, waiting)):
        jobs.cancel(c, job_id, after(number))

    assert recovery.list_unsettled(c) == [running, waiting]
    assert recovery.list_unsettled(c, limit=1) == [running]
    assert jobs.settle_stopped(c, running, 1, RESULT, USAGE)
    assert jobs.settle_orphan(c, waiting, 0, Result(), None)
    assert recovery.list_unsettled(c) == []


def test_ended_jobs_are_listed_once_in_the_order_of_their_end(c: Connection) -> None:
    stored, unstored = put_job(c, retention_s=30 * 86400), put_job(c, retention_s=600)
    jobs.cancel(c, unstored, after(2))
    jobs.cancel(c, stored, after(1))
    put_job(c)

    first = recovery.list_ended(c, NOW, after(3), retentions_s=[600, 30 * 86400], limit=1)
    rest = recovery.list_ended(c, first.until, after(3), retentions_s=[600, 30 * 86400])

    assert first == recovery.Ended(job_ids=[stored], until=after(1))
    assert rest == recovery.Ended(job_ids=[unstored], until=after(3))
    assert recovery.list_ended(c, rest.until, after(9), retentions_s=[600]).job_ids == []


def test_jobs_that_ended_at_the_same_moment_are_on_one_page(c: Connection) -> None:
    first, *tied = [put_job(c) for _ in range(5)]
    jobs.cancel(c, first, after(1))
    for job_id in tied:
        jobs.cancel(c, job_id, after(2))
    last = put_job(c)
    jobs.cancel(c, last, after(3))

    listed: list[str] = []
    since = NOW
    while since < after(9):
        page = recovery.list_ended(c, since, after(9), retentions_s=[600], limit=2)
        listed += page.job_ids
        since = page.until

    assert listed == [first, *sorted(tied), last]


def test_a_job_with_too_many_lost_attempts_is_claimed_only_on_purpose_and_can_be_cleared(c: Connection) -> None:
    lost_from = poison_jobs.isolation_threshold(3)
    job_id = put_job(c)
    for _ in range(lost_from):
        assert not poison_jobs.needs_isolation(c, job_id, lost_from)
        assert jobs.claim(c, job_id, "gone", NOW, lost_below=lost_from)
        _recover(c)

    assert poison_jobs.needs_isolation(c, job_id, lost_from)
    assert jobs.claim(c, job_id, "w1", NOW, lost_below=lost_from) is None
    claim = jobs.claim(c, job_id, "w1", NOW)
    assert claim is not None
    assert not poison_jobs.needs_isolation(c, job_id, lost_from)
    assert not poison_jobs.clear_lost_attempts(c, job_id, claim.attempt - 1)
    assert poison_jobs.clear_lost_attempts(c, job_id, claim.attempt)

    assert _ids(_recover(c, "w1")) == {job_id}
    assert jobs.get(c, job_id, "alice").lost_attempts == 1


def test_a_job_that_was_never_lost_is_not_isolated_however_few_losses_are_allowed() -> None:
    assert [poison_jobs.isolation_threshold(allowed) for allowed in (1, 2, 3, 10)] == [1, 1, 2, 9]
