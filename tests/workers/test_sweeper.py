"""What the sweeper finds and puts right."""

from datetime import UTC, datetime, timedelta, tzinfo
from functools import partial

import pytest
from msgspec import structs
from sqlalchemy import update
from structlog.testing import capture_logs

from storage.accounts import idempotency
from storage.accounts.idempotency import KeyedRequest
from storage.broker.celery_queue import TicketPublisher, queue_length
from storage.broker.event_log import LogWriter
from storage.contract import (
    BACKGROUND_PRIORITY,
    End,
    FinishReason,
    JobSpec,
    JobStatus,
    PriorityQueue,
    Result,
    TokenEvent,
    Usage,
    WorkerStatus,
)
from storage.conversations import conversation_items, conversation_rows
from storage.conversations.tables import ConversationItem
from storage.database.table_definitions import table_of
from storage.fleet import workers
from storage.fleet.workers import NewWorker
from storage.jobs import jobs, records
from storage.jobs.tables import Job, JobInput
from tests.fakes import FakeQueue, spec
from tests.waiting import wait_until
from tests.workers.conftest import Make
from tests.workers.harness import MODEL, Backend, assert_whole, text_of
from workers.maintenance.sweeper import Sweeper
from workers.publishing.log_entries import end_row, start_row, tokens_row

ENTRIES = (
    (TokenEvent(choice=0, token_ids=(20,), text=" a"),),
    (TokenEvent(choice=0, token_ids=(21,), text=" b"),),
    (TokenEvent(choice=0, token_ids=(0,), text="", finish=FinishReason.STOP),),
)
USAGE = Usage(prompt_tokens=4, completion_tokens=3)


def _register(backend: Backend, worker_id: str) -> None:
    new = NewWorker(worker_id=worker_id, model=MODEL, pid=1, host="h", device="cpu", dtype="float32", slots=1)
    with backend.database.begin() as connection:
        workers.register(connection, new, datetime.now(UTC))


def _mark_dead(backend: Backend, worker_id: str) -> None:
    with backend.database.begin() as connection:
        workers.mark_dead(connection, worker_id)


def _change(backend: Backend, job_id: str, **values: object) -> None:
    table = table_of(Job)
    with backend.database.begin() as connection:
        connection.execute(update(table).where(table.c.id == job_id).values(**values))


def _lose_ticket(backend: Backend, job_id: str) -> None:
    """The job was sent an hour ago, and no such ticket waits."""
    _change(backend, job_id, sent_at=datetime.now(UTC) - timedelta(hours=1))


def _append(backend: Backend, job_id: str, attempt: int, num_entries: int, *, first: int = 1) -> None:
    rows = [tokens_row(job_id, attempt, seq, ENTRIES[seq - 1]) for seq in range(first, num_entries + 1)]
    LogWriter(backend.redis, "w").append([start_row(job_id, attempt), *rows])


def _complete(backend: Backend, job_id: str) -> None:
    outcome = partial(jobs.complete, status=JobStatus.COMPLETED, result=Result(entries=ENTRIES), usage=USAGE)
    with backend.database.begin() as connection:
        assert outcome(connection, job_id, 1, now=datetime.now(UTC))


def test_jobs_of_a_worker_marked_dead_are_queued_and_sent_at_once(
    backend: Backend, sweeper: Sweeper, tickets: FakeQueue
) -> None:
    job_id = backend.put_job(spec(3))
    _register(backend, "somebody")
    backend.claim(job_id)
    sweeper.sweep()
    assert backend.row(job_id).status is JobStatus.IN_PROGRESS

    _mark_dead(backend, "somebody")
    sweeper.sweep()

    row = backend.row(job_id)
    assert (row.status, row.lost_attempts) == (JobStatus.QUEUED, 1)
    assert tickets.sent == [(job_id, MODEL)]


def test_jobs_of_a_worker_that_fell_silent_follow_after_its_lease(
    backend: Backend, sweeper: Sweeper, tickets: FakeQueue
) -> None:
    job_id = backend.put_job(spec(3))
    _register(backend, "somebody")
    backend.claim(job_id)

    def recovered() -> bool:
        sweeper.sweep()
        return bool(tickets.sent)

    wait_until(recovered, 5.0)
    assert backend.row(job_id).status is JobStatus.QUEUED
    with backend.database.connect() as connection:
        worker = workers.find(connection, "somebody")
    assert worker is not None
    assert worker.status == "dead"


def test_a_job_that_loses_every_worker_fails_and_keeps_what_it_said(
    backend: Backend, sweeper: Sweeper, tickets: FakeQueue
) -> None:
    job_id = backend.put_job(spec(3))
    _change(backend, job_id, lost_attempts=2)
    _append(backend, job_id, backend.claim(job_id), 2)

    sweeper.sweep()

    row, log = backend.row(job_id), backend.log(job_id)
    assert row.status is JobStatus.FAILED
    assert (row.failure or {})["code"] == "worker_lost"
    assert text_of(log) == " a b"
    assert log[-1].end == records.end_of(row)
    assert (row.prompt_tokens, row.completion_tokens) == (4, 2)
    assert records.result_of(row).entries == ENTRIES[:2]
    assert tickets.sent == []


def test_a_sweeper_that_goes_leaves_its_duty_to_the_next(backend: Backend, make: Make, tickets: FakeQueue) -> None:
    first, second = make(), make()
    first.sweep()
    job_id = backend.put_job(spec(3))
    backend.claim(job_id)

    first.leave()
    second.sweep()

    assert tickets.sent == [(job_id, MODEL)]


def test_a_queued_job_without_a_ticket_is_sent_again(backend: Backend, sweeper: Sweeper, tickets: FakeQueue) -> None:
    job_id = backend.put_job(spec(3))
    _lose_ticket(backend, job_id)

    sweeper.sweep()

    assert tickets.sent == [(job_id, MODEL)]


def test_a_queued_job_that_waits_in_line_is_left_alone(backend: Backend, sweeper: Sweeper, tickets: FakeQueue) -> None:
    waiting, fresh = backend.put_job(spec(3)), backend.put_job(spec(3))
    publisher = TicketPublisher(backend.settings.redis_url)
    publisher.start()
    publisher.send(waiting, MODEL)
    publisher.stop()
    assert queue_length(backend.redis, MODEL) == 1
    lost = backend.put_job(spec(3))
    _lose_ticket(backend, lost)

    sweeper.sweep()

    assert tickets.sent == [(lost, MODEL)]
    assert {backend.row(job_id).status for job_id in (waiting, fresh)} == {JobStatus.QUEUED}


def _patient(num_tokens: int) -> JobSpec:
    return structs.replace(spec(num_tokens), priority=BACKGROUND_PRIORITY)


def _serve(backend: Backend, *worker_ids: str) -> None:
    for worker_id in worker_ids:
        _register(backend, worker_id)
        with backend.database.begin() as connection:
            workers.set_status(connection, worker_id, WorkerStatus.READY)


def test_jobs_that_age_in_the_back_queue_move_to_the_front_queue_one_for_each_worker(
    backend: Backend, sweeper: Sweeper, tickets: FakeQueue
) -> None:
    _serve(backend, "first", "second")
    job_ids = [backend.put_job(_patient(3)) for _ in range(4)]
    fresh = backend.put_job(_patient(3))
    for age, job_id in zip((59, 58, 57, 56), job_ids, strict=True):
        _change(backend, job_id, sent_at=datetime.now(UTC) - timedelta(seconds=age))
    sweeper.sweep()
    sweeper.sweep()

    assert tickets.sent == [(job_id, MODEL) for job_id in job_ids[:2]]
    assert tickets.priority_queues == [PriorityQueue.FRONT] * 2
    assert [backend.row(job_id).priority_queue for job_id in (*job_ids, fresh)] == [PriorityQueue.FRONT] * 2 + [
        PriorityQueue.BACK
    ] * 3

    # One that runs is still on its way; one that ended makes room for the next.
    _serve(backend, "first", "second")
    backend.claim(job_ids[0], "first")
    backend.cancel(job_ids[1])
    sweeper.sweep()
    sweeper.sweep()

    assert tickets.sent[2:] == [(job_ids[2], MODEL)]


def test_nothing_moves_where_nobody_works(backend: Backend, sweeper: Sweeper, tickets: FakeQueue) -> None:
    job_id = backend.put_job(_patient(3))
    _change(backend, job_id, sent_at=datetime.now(UTC) - timedelta(seconds=59))

    sweeper.sweep()

    assert tickets.sent == []
    assert backend.row(job_id).priority_queue is PriorityQueue.BACK


def test_a_job_whose_time_is_over_goes_with_its_log(backend: Backend, sweeper: Sweeper) -> None:
    gone, kept = backend.put_job(spec(3), retention_s=0), backend.put_job(spec(3))
    for job_id in (gone, kept):
        _append(backend, job_id, backend.claim(job_id), 3)
        _complete(backend, job_id)

    def erased() -> bool:
        sweeper.sweep()
        with backend.database.connect() as connection:
            return jobs.find(connection, gone) is None

    wait_until(erased)
    assert backend.log(gone) == []
    assert backend.row(kept).status is JobStatus.COMPLETED


def test_idempotency_keys_whose_time_is_over_are_forgotten(backend: Backend, sweeper: Sweeper) -> None:
    now, long_ago = datetime.now(UTC), datetime.now(UTC) - timedelta(days=1)
    old, young = (KeyedRequest(owner="alice", key=key, body_digest=b"d") for key in ("old", "young"))
    with backend.database.begin() as c:
        assert idempotency.take(c, old, "resp_1", now=long_ago, expires_at=now)
        assert idempotency.take(c, young, "resp_2", now=now, expires_at=now + timedelta(days=1))

    sweeper.sweep()

    with backend.database.connect() as c:
        assert idempotency.find(c, old, long_ago) is None
        assert idempotency.find(c, young, now) == "resp_2"


@pytest.mark.parametrize("num_entries", [0, 2, 3])
def test_a_committed_job_whose_log_stops_short_gets_the_rest(
    backend: Backend, sweeper: Sweeper, num_entries: int
) -> None:
    job_id = backend.put_job(spec(3))
    _append(backend, job_id, backend.claim(job_id), num_entries)
    _complete(backend, job_id)

    sweeper.sweep()
    sweeper.sweep()

    assert_whole(backend.log(job_id), Result(entries=ENTRIES))
    assert backend.log(job_id)[-1].end == records.end_of(backend.row(job_id))


def test_a_committed_job_whose_log_is_gone_gets_it_from_its_row(backend: Backend, sweeper: Sweeper) -> None:
    job_id = backend.put_job(spec(3))
    backend.claim(job_id)
    _complete(backend, job_id)

    sweeper.sweep()
    sweeper.sweep()

    assert_whole(backend.log(job_id), Result(entries=ENTRIES))


def test_a_log_that_is_whole_is_left_alone(backend: Backend, sweeper: Sweeper) -> None:
    job_id = backend.put_job(spec(3))
    _append(backend, job_id, backend.claim(job_id), 3)
    _complete(backend, job_id)
    end = records.end_of(backend.row(job_id))
    assert end is not None
    LogWriter(backend.redis, "w").append([end_row(job_id, 1, 3, end)])
    before = backend.log(job_id)

    sweeper.sweep()

    assert backend.log(job_id) == before


def test_a_cancelled_job_of_a_worker_that_died_is_settled_from_its_log(backend: Backend, sweeper: Sweeper) -> None:
    job_id = backend.put_job(spec(3))
    _append(backend, job_id, backend.claim(job_id), 2)
    backend.cancel(job_id)

    sweeper.sweep()

    row, log = backend.row(job_id), backend.log(job_id)
    assert (row.status, row.attempt, row.completion_tokens) == (JobStatus.CANCELLED, 2, 2)
    assert records.result_of(row).entries == ENTRIES[:2]
    end = log[-1].end
    assert end == records.end_of(row)
    assert isinstance(end, End)
    # The worker comes back: nobody hears it.
    late = LogWriter(backend.redis, "w").append([tokens_row(job_id, 1, 3, ENTRIES[2])])
    assert late.fenced == [job_id]


def test_a_job_that_cannot_be_read_keeps_no_other_from_being_settled(backend: Backend, sweeper: Sweeper) -> None:
    broken, sound = backend.put_job(spec(3)), backend.put_job(spec(3))
    for job_id in (broken, sound):
        _append(backend, job_id, backend.claim(job_id), 2)
        backend.cancel(job_id)
    inputs = table_of(JobInput)
    with backend.database.begin() as connection:
        connection.execute(update(inputs).where(inputs.c.job_id == broken).values(spec=b"of another version"))

    with capture_logs() as said:
        sweeper.sweep()
        sweeper.sweep()

    assert records.result_of(backend.row(sound)).entries == ENTRIES[:2]
    assert [entry["job_id"] for entry in said if entry["event"] == "log_not_repaired"] == [broken]


@pytest.mark.parametrize("hours", [-1, 1])
def test_an_orphan_is_settled_whatever_clock_ended_it(backend: Backend, sweeper: Sweeper, hours: int) -> None:
    job_id = backend.put_job(spec(3))
    _append(backend, job_id, backend.claim(job_id), 2)
    backend.cancel(job_id)
    _change(backend, job_id, ended_at=datetime.now(UTC) + timedelta(hours=hours))

    sweeper.sweep()

    row, log = backend.row(job_id), backend.log(job_id)
    assert records.result_of(row).entries == ENTRIES[:2]
    assert log[-1].end == records.end_of(row)


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_lost_ticket_is_found_by_a_sweeper_whose_clock_is_wrong(
    backend: Backend, sweeper: Sweeper, tickets: FakeQueue, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    right = datetime.now

    class WrongClock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]  # a class method of the same name
            return right(tz) + timedelta(hours=hours)

    lost, fresh = backend.put_job(spec(3)), backend.put_job(spec(3))
    _change(backend, lost, sent_at=datetime.now(UTC) - timedelta(seconds=61))
    monkeypatch.setattr("workers.maintenance.job_recovery.datetime", WrongClock)

    sweeper.sweep()
    sweeper.sweep()

    assert tickets.sent == [(lost, MODEL)]
    assert backend.row(fresh).status is JobStatus.QUEUED


def test_one_sweeper_works_and_another_takes_over_after_its_lease(
    backend: Backend, make: Make, tickets: FakeQueue
) -> None:
    first, second = make(), make()
    first.sweep()
    job_id = backend.put_job(spec(3))
    _lose_ticket(backend, job_id)

    second.sweep()
    assert tickets.sent == []

    def taken_over() -> bool:
        second.sweep()
        return bool(tickets.sent)

    wait_until(taken_over, 5.0)
    assert tickets.sent == [(job_id, MODEL)]
    first.sweep()
    assert tickets.sent == [(job_id, MODEL)]


def test_a_deleted_conversation_is_erased(backend: Backend, sweeper: Sweeper) -> None:
    now = datetime.now(UTC)
    with backend.database.begin() as connection:
        row = conversation_rows.create(connection, "conv_1", "alice", {}, now)
        conversation_items.add(connection, row, conversation_items.new_items([{"id": "a"}]), max_bytes=1000)
        conversation_rows.delete_whole(connection, "conv_1", "alice", now)

    sweeper.sweep()

    with backend.database.connect() as connection:
        assert conversation_rows.find_deleted(connection) is None
        assert connection.execute(table_of(ConversationItem).select()).all() == []
