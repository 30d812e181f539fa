"""Queue status: queued jobs counted by model, priority queue and owner, and the position of each."""

import random
from collections.abc import Iterator
from datetime import datetime

import pytest
from msgspec import structs
from sqlalchemy import Connection, event, text

from storage.contract import PriorityQueue
from storage.database.connections import Database
from storage.derived import queue_counts
from storage.derived.queue_counts import Waiting
from storage.jobs import jobs, recovery, waiting
from storage.jobs.waiting import QueuePosition, Sample
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

    assert {(one.model, one.priority_queue, one.owner): one.num_jobs for one in queue_counts.count_waiting(c)} == {
        ("demo", PriorityQueue.FRONT, "alice"): 2,
        ("demo", PriorityQueue.FRONT, "bob"): 1,
        ("demo", PriorityQueue.BACK, "alice"): 1,
        ("other", PriorityQueue.PRIORITY, "alice"): 1,
    }
    assert isinstance(queue_counts.count_waiting(c)[0], Waiting)


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


def test_queries_about_queued_jobs_read_their_index_alone(sqlite_database: Database) -> None:
    asked: list[tuple[str, tuple[object, ...]]] = []
    with sqlite_database.begin() as connection:
        event.listen(connection, "before_cursor_execute", lambda *given: asked.append((given[2], given[3])))
        waiting.position_of(connection, "demo", PriorityQueue.FRONT, NOW)
        waiting.find_oldest(connection, "demo", PriorityQueue.FRONT)
        waiting.find_newest(connection, "demo", PriorityQueue.FRONT)
        sample = Sample(sent_at=NOW, owner="alice", job_id="x")
        waiting.list_samples(connection, "demo", PriorityQueue.FRONT, sample, 1)
        statements = [one for one in asked if "FROM job" in one[0]]
        for statement, values in statements:
            rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
            plan = " ".join(row.detail for row in rows)
            assert "INDEX ix_job_queued (served_model=? AND priority_queue=?" in plan, plan
            assert "TEMP B-TREE" not in plan, plan
    assert len(statements) == 4


def test_counts_follow_every_change_of_a_queued_job(c: Connection) -> None:
    """Random changes; the triggers' counts are those of the rows."""
    generator = random.Random(7)
    job_ids: list[str] = []
    for _ in range(300):
        owner, model = generator.choice(["alice", "bob"]), generator.choice(["demo", "other"])
        job_ids.append(put_job(c, owner=owner, model=model, spec=generator.choice([SPEC, PATIENT, URGENT])))
        job_id = generator.choice(job_ids)
        match generator.randrange(6):
            case 0:
                claim = jobs.claim(c, job_id, "w1", NOW)
                if claim is not None and generator.random() < 0.5:
                    jobs.requeue(c, job_id, claim.attempt)
            case 1:
                jobs.cancel(c, job_id, NOW)
            case 2:
                recovery.move_to_front(c, [job_id])
            case 3:
                recovery.erase_many(c, [job_id])
            case 4:
                recovery.mark_sent(c, [job_id])
            case _:
                queue_counts.compact(c)
    _assert_counts_match(c)
    recovery.erase_many(c, job_ids)
    _assert_counts_match(c)
    queue_counts.compact(c)
    assert c.execute(text("SELECT count(*) FROM queue_count")).scalar_one() == 0


def _assert_counts_match(c: Connection) -> None:
    query = "SELECT served_model, priority_queue, owner, count(*) FROM job WHERE status = 'queued' GROUP BY 1, 2, 3"
    expected = {tuple(row) for row in c.execute(text(query))}
    found = queue_counts.count_waiting(c)
    assert {(one.model, one.priority_queue.value, one.owner, one.num_jobs) for one in found} == expected


def test_a_position_far_behind_is_a_bound_with_the_time_to_estimate_it_from(
    c: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "MAX_EXACT_POSITION", 3)
    queued = [put_job(c, created_at=_long_ago(number)) for number in range(6)]

    found = waiting.list_positions(c, queued)

    assert [found[job_id].number for job_id in queued] == [1, 2, 3, 4, 4, 4]
    assert found[queued[2]].sent_at is None
    assert found[queued[5]].sent_at == _long_ago(5)
    assert waiting.find_position(c, queued[5]) == found[queued[5]]


def test_samples_are_equally_far_apart_also_where_tickets_were_sent_at_once(
    c: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "SAMPLE_SIZE", 10)
    queued = [put_job(c, created_at=_long_ago(number // 25)) for number in range(100)]
    put_job(c, created_at=waiting.database_now(c))

    first = waiting.list_samples(c, "demo", PriorityQueue.FRONT, None, 4)
    rest = waiting.list_samples(c, "demo", PriorityQueue.FRONT, first[-1], 100)

    in_order = sorted(queued, key=lambda job_id: (queued.index(job_id) // 25, job_id))
    assert [sample.job_id for sample in first + rest] == in_order[9::10]
    assert waiting.find_oldest(c, "demo", PriorityQueue.FRONT) == _long_ago(0)
    assert waiting.find_newest(c, "demo", PriorityQueue.FRONT) > _long_ago(3)
    assert waiting.find_oldest(c, "demo", PriorityQueue.BACK) is None
    assert waiting.find_newest(c, "demo", PriorityQueue.BACK) is None
