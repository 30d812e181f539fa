"""Continuations: jobs of one owner and id are claimed one after another, on both databases."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, event

from storage.contract import BACKGROUND_PRIORITY, Failure, JobSpec, JobStatus, PriorityQueue, SamplingParams
from storage.database.connections import Database
from storage.jobs import jobs, recovery
from tests.storage.examples import RESULT, USAGE, after, put_job

SPEC = JobSpec(prompts=((1, 2),), sampling=SamplingParams(max_tokens=8), priority=BACKGROUND_PRIORITY)


@pytest.fixture
def c(database: Database) -> Iterator[Connection]:
    with database.begin() as connection:
        yield connection


def _put(c: Connection, seconds: float, continuation_id: str | None = "c", **changes: Any) -> str:
    return put_job(c, continuation_id=continuation_id, created_at=after(seconds), spec=SPEC, **changes)


def _is_claimed(c: Connection, job_id: str) -> bool:
    return jobs.claim(c, job_id, "w1", after(9)) is not None


def _lost(c: Connection) -> list[str]:
    now = recovery.database_now(c)
    return [ticket.job_id for ticket in recovery.list_lost_tickets(c, "demo", PriorityQueue.BACK, now)]


def _complete(c: Connection, job_id: str) -> object:
    return jobs.complete(c, job_id, 1, status=JobStatus.COMPLETED, result=RESULT, usage=USAGE, now=after(10))


def _fail(c: Connection, job_id: str) -> object:
    return jobs.fail(c, job_id, 1, Failure(code="x", message="y"), None, None, after(10))


def _cancel(c: Connection, job_id: str) -> object:
    return jobs.cancel(c, job_id, after(10))


def _erase(c: Connection, job_id: str) -> object:
    return jobs.erase(c, job_id, "alice")


@pytest.mark.parametrize("end", [_complete, _fail, _cancel, _erase])
def test_each_starts_when_the_one_before_has_ended(c: Connection, end: Any) -> None:
    first, second, third = (_put(c, number) for number in range(3))
    assert _lost(c) == [first]

    assert not _is_claimed(c, second)
    assert _is_claimed(c, first)
    assert not _is_claimed(c, second)
    assert _lost(c) == []
    assert end(c, first)

    assert _lost(c) == [second]
    assert not _is_claimed(c, third)
    assert _is_claimed(c, second)


def test_a_job_that_is_given_back_is_still_the_first(c: Connection) -> None:
    first, second = (_put(c, number) for number in range(2))
    assert _is_claimed(c, first)
    assert jobs.requeue(c, first, 1)

    assert not _is_claimed(c, second)
    assert _is_claimed(c, first)


def test_jobs_of_the_same_moment_have_an_order(c: Connection) -> None:
    ids = sorted(_put(c, 1) for _ in range(3))

    assert [job_id for job_id in ids[::-1] if _is_claimed(c, job_id)] == [ids[0]]


def test_others_wait_for_nobody(c: Connection) -> None:
    _put(c, 0)

    for changes in ({"continuation_id": "d"}, {"continuation_id": None}, {"owner": "bob"}):
        assert _is_claimed(c, _put(c, 1, **{"continuation_id": "c", **changes}))


def test_the_jobs_before_are_found_by_their_index(sqlite_database: Database) -> None:
    asked: list[tuple[str, tuple[object, ...]]] = []
    with sqlite_database.begin() as connection:
        job_id = _put(connection, 0)
        event.listen(connection, "before_cursor_execute", lambda *given: asked.append((given[2], given[3])))
        assert _is_claimed(connection, job_id)
        [(statement, values)] = asked
        plan = [row.detail for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)]

    assert any("ix_job_continuation" in step and "owner=? AND continuation_id=?" in step for step in plan), plan
    assert not any(step.startswith(("SCAN job", "SCAN older")) for step in plan), plan
