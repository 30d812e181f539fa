"""Queue status: queued jobs counted by model, priority queue and owner, and the position of each."""

from collections.abc import Iterator
from datetime import datetime

import pytest
from msgspec import structs
from sqlalchemy import Connection, text

from storage.contract import PriorityQueue
from storage.database.connections import Database
from storage.jobs import jobs, recovery, waiting
from storage.jobs.waiting import QueuePosition, Waiting
from tests.storage.examples import NOW, SPEC, after, put_job

PATIENT = structs.replace(SPEC, priority=10)
URGENT = structs.replace(SPEC, priority=-10)


@pytest.fixture
def c(database: Database) -> Iterator[Connection]:
    with database.begin() as connection:
        yield connection


def _position(position: int, priority_queue: PriorityQueue = PriorityQueue.FRONT) -> QueuePosition:
    return QueuePosition(model="demo", priority_queue=priority_queue, number=position)


def test_queued_jobs_are_counted_by_model_priority_queue_and_owner(c: Connection) -> None:
    for changes in ({}, {}, {"owner": "bob"}, {"spec": PATIENT}, {"model": "other", "spec": URGENT}):
        put_job(c, **changes)
    assert jobs.claim(c, put_job(c), "w1", NOW)
    jobs.cancel(c, put_job(c), NOW)

    assert {(one.model, one.priority_queue, one.owner): one.num_jobs for one in waiting.count_waiting(c)} == {
        ("demo", PriorityQueue.FRONT, "alice"): 2,
        ("demo", PriorityQueue.FRONT, "bob"): 1,
        ("demo", PriorityQueue.BACK, "alice"): 1,
        ("other", PriorityQueue.PRIORITY, "alice"): 1,
    }
    assert isinstance(waiting.count_waiting(c)[0], Waiting)


def test_those_that_run_are_counted_by_worker(c: Connection) -> None:
    for worker_id in ("w1", "w2", "w1"):
        assert jobs.claim(c, put_job(c), worker_id, NOW)
    put_job(c)

    assert waiting.count_running(c) == {"w1": 2, "w2": 1}


def _long_ago(seconds: float) -> datetime:
    """Before this moment by any clock, as the database's says it."""
    return after(seconds - 365 * 86400)


def test_a_position_counts_the_own_priority_queue_and_changes_as_others_leave(c: Connection) -> None:
    queued = [put_job(c, created_at=_long_ago(number)) for number in range(3)]
    patient, urgent = put_job(c, spec=PATIENT), put_job(c, spec=URGENT)
    put_job(c, model="other")
    everybody = [*queued, patient, urgent, "resp_unknown"]

    assert waiting.list_positions(c, everybody) == {
        queued[0]: _position(1),
        queued[1]: _position(2),
        queued[2]: _position(3),
        patient: _position(1, PriorityQueue.BACK),
        urgent: _position(1, PriorityQueue.PRIORITY),
    }
    assert jobs.claim(c, queued[0], "w1", NOW)
    recovery.mark_sent(c, [queued[1]])
    assert waiting.list_positions(c, everybody[:3]) == {queued[2]: _position(1), queued[1]: _position(2)}
    assert waiting.position_of(c, "demo", PriorityQueue.FRONT, _long_ago(2)) == _position(1)
    assert waiting.position_of(c, "demo", PriorityQueue.FRONT, _long_ago(9)) == _position(2)
    assert waiting.find_position(c, queued[1]) == _position(2)
    assert waiting.find_position(c, queued[0]) is None
    assert waiting.list_positions(c, []) == {}


def test_the_index_of_queued_jobs_answers(sqlite_database: Database) -> None:
    questions = (
        "SELECT served_model, priority_queue, owner, count(*) FROM job WHERE status = 'queued' GROUP BY 1, 2, 3",
        "SELECT count(*) FROM job WHERE status = 'queued' AND served_model = 'm' AND priority_queue = 'l'",
        "SELECT rank() OVER (PARTITION BY served_model ORDER BY sent_at) FROM job WHERE status = 'queued'",
    )
    with sqlite_database.connect() as c:
        for question in questions:
            plan = " ".join(row.detail for row in c.execute(text(f"EXPLAIN QUERY PLAN {question}")))
            assert "INDEX ix_job_queued" in plan, plan
