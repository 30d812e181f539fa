"""Jobs whose time is over, by the database's own clock."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Connection, event, select, text, update
from sqlalchemy.dialects import sqlite

from storage.contract import JobStatus, Result
from storage.database.connections import Database
from storage.database.table_definitions import table_of
from storage.fleet import workers
from storage.jobs import deadlines, jobs, records
from storage.jobs.tables import Job
from tests.storage.examples import RESULT, USAGE, put_job, put_worker

NOW = datetime.now(UTC)
PAST, FUTURE = NOW - timedelta(seconds=1), NOW + timedelta(hours=1)


@pytest.fixture
def c(database: Database) -> Iterator[Connection]:
    with database.begin() as connection:
        yield connection


def _statuses(c: Connection, *job_ids: str) -> list[JobStatus]:
    return [jobs.get(c, job_id, "alice").status for job_id in job_ids]


def test_an_overdue_job_is_claimed_by_nobody(c: Connection) -> None:
    overdue = [put_job(c, expires_at=PAST), put_job(c, cancel_at=PAST), put_job(c, cancel_at=PAST, expires_at=FUTURE)]
    in_time = put_job(c, expires_at=FUTURE, cancel_at=FUTURE)

    # A worker's own clock has no say.
    for wrong in (NOW, NOW - timedelta(hours=2)):
        assert [jobs.claim(c, job_id, "w1", wrong) for job_id in overdue] == [None, None, None]
    assert jobs.claim(c, in_time, "w1", NOW + timedelta(hours=2)) is not None


def test_overdue_jobs_end_each_as_it_was_asked(c: Connection) -> None:
    expired, cancelled = put_job(c, expires_at=PAST), put_job(c, cancel_at=PAST)
    both = put_job(c, expires_at=PAST, cancel_at=PAST)
    in_time, endless = put_job(c, expires_at=FUTURE, cancel_at=FUTURE), put_job(c)
    assert deadlines.has_overdue(c)

    ended = deadlines.end_overdue(c, NOW)

    assert {state.job_id: (state.status, state.worker_id) for state in ended} == {
        expired: (JobStatus.FAILED, None),
        both: (JobStatus.FAILED, None),
        cancelled: (JobStatus.CANCELLED, None),
    }
    assert _statuses(c, in_time, endless) == [JobStatus.QUEUED, JobStatus.QUEUED]
    end = records.end_of(jobs.get(c, expired, "alice"))
    assert end is not None
    assert end.failure == deadlines.EXPIRED
    assert jobs.get(c, expired, "alice").erase_at is not None
    assert not deadlines.has_overdue(c)
    assert deadlines.end_overdue(c, NOW) == []


def test_a_running_job_that_expires_is_settled_once_by_its_worker(c: Connection) -> None:
    job_id = put_job(c)
    assert jobs.claim(c, job_id, "w1", NOW)
    c.execute(update(table_of(Job)).where(table_of(Job).c.id == job_id).values(expires_at=PAST))

    (state,) = deadlines.end_overdue(c, NOW)

    assert (state.worker_id, state.attempt, state.status) == ("w1", 1, JobStatus.FAILED)
    assert not jobs.complete(c, job_id, 1, status=JobStatus.COMPLETED, result=RESULT, usage=USAGE, now=NOW)
    assert jobs.settle_stopped(c, job_id, 1, RESULT, USAGE)
    assert not jobs.settle_stopped(c, job_id, 1, Result(), None)
    job = jobs.get(c, job_id, "alice")
    assert (records.result_of(job), records.usage_of(job)) == (RESULT, USAGE)
    assert (job.failure or {})["code"] == "expired"


def test_a_job_that_failed_by_itself_keeps_its_result(c: Connection) -> None:
    job_id = put_job(c)
    assert jobs.claim(c, job_id, "w1", NOW)
    assert jobs.fail(c, job_id, 1, deadlines.EXPIRED, RESULT, USAGE, NOW)
    assert not jobs.settle_stopped(c, job_id, 1, Result(), None)


def test_queued_jobs_of_a_model_that_nobody_serves_fail_after_a_while(c: Connection) -> None:
    before = NOW - timedelta(hours=24)
    long_ago = before - timedelta(hours=1)
    put_worker(c, "w1", model="served", seen_at=long_ago)
    put_worker(c, "w2", model="lately", seen_at=NOW)
    put_worker(c, "w3", model="gone", seen_at=long_ago)
    for worker_id in ("w2", "w3"):
        workers.mark_dead(c, worker_id)
    served, lately, gone, unknown = (
        put_job(c, model=model, created_at=long_ago) for model in ("served", "lately", "gone", "unknown")
    )
    young = put_job(c, model="gone", created_at=NOW)
    running = put_job(c, model="gone", created_at=long_ago)
    jobs.claim(c, running, "w3", NOW)

    ended = deadlines.end_unserved(c, deadlines.list_unserved(c, before), NOW)

    assert {state.job_id for state in ended} == {gone, unknown}
    assert _statuses(c, served, lately, young) == [JobStatus.QUEUED] * 3
    assert (jobs.get(c, gone, "alice").failure or {})["code"] == "model_unavailable"


@pytest.mark.parametrize(("index", "is_due"), [("ix_job_expires_at", 0), ("ix_job_cancel_at", 1)])
def test_the_search_for_overdue_jobs_uses_its_index(sqlite_database: Database, index: str, is_due: int) -> None:
    condition = (deadlines.IS_EXPIRED, deadlines.IS_TO_CANCEL)[is_due]
    query = select(table_of(Job).c.id).where(condition).compile(dialect=sqlite.dialect())
    with sqlite_database.connect() as connection:
        plan = " ".join(row.detail for row in connection.execute(text(f"EXPLAIN QUERY PLAN {query}")))
    assert index in plan, plan


def test_the_search_for_unserved_jobs_reads_only_queued_ones(sqlite_database: Database) -> None:
    asked: list[tuple[str, tuple[object, ...]]] = []
    with sqlite_database.begin() as connection:
        put_job(connection)
        event.listen(connection, "before_cursor_execute", lambda *given: asked.append((given[2], given[3])))
        deadlines.list_unserved(connection, NOW)
        statement, values = asked[-1]
        plan = " ".join(row.detail for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values))

    assert "ix_job_queued" in plan, plan
    assert "ix_job_created_at" not in plan, plan


def test_jobs_that_were_claimed_meanwhile_are_not_ended_as_unserved(c: Connection) -> None:
    job_id = put_job(c, created_at=NOW - timedelta(hours=2))
    found = deadlines.list_unserved(c, NOW)
    jobs.claim(c, job_id, "w1", NOW)

    assert found == [job_id]
    assert deadlines.end_unserved(c, found, NOW) == []
