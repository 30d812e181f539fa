"""A job's walk through a worker: claim, log, outcome, answer."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import pytest
from msgspec import structs

from storage.broker.celery_queue import queue_of
from storage.broker.event_log import TAPS_KEY, LogWriter, reader_channel
from storage.contract import EntryKind, Failure, FinishReason, JobStatus, WorkerStatus
from storage.errors import ModelFilesMissing
from storage.fleet import manifests, workers
from storage.jobs import jobs, records
from tests.fakes import BREAKS_STEP, MANIFEST, NOT_FINITE, FakeRunner, bad_spec, foretold, spec
from tests.waiting import wait_until
from tests.workers.harness import (
    MODEL,
    Backend,
    Bench,
    FakeTicket,
    assert_whole,
    running,
    text_of,
    tokens_of,
    wait_for_answer,
)
from workers.engine.sampling_seed import choice_seed
from workers.publishing.log_entries import start_row, tokens_row


@contextmanager
def _generating(backend: Backend, *, num_entries: int = 2) -> Iterator[tuple[Bench, str, FakeTicket]]:
    """A worker in the midst of a long job, once so many entries are in its log."""
    with running(backend, runner=FakeRunner(step_s=0.01)) as bench:
        job_id = backend.put_job(spec(1500))
        ticket = bench.submit(job_id)
        backend.wait_for_tokens(job_id, num_entries)
        yield bench, job_id, ticket


def test_a_job_runs_to_its_end(backend: Backend, bench: Bench) -> None:
    job_id = backend.put_job(spec(5))

    assert wait_for_answer(bench.submit(job_id)) == "acknowledged"

    row, log = backend.row(job_id), backend.log(job_id)
    assert row.status is JobStatus.COMPLETED
    assert (row.prompt_tokens, row.completion_tokens, row.attempt) == (4, 6, 1)
    assert_whole(log, records.result_of(row))
    assert text_of(log) == foretold(5)
    assert log[-1].end == records.end_of(row)
    [attempt] = backend.attempts(job_id)
    assert (attempt.number, attempt.worker_id, attempt.outcome) == (1, row.worker_id, "completed")
    assert attempt.first_token_at == row.first_token_at
    assert row.started_at is not None
    assert row.first_token_at is not None
    assert row.ended_at is not None
    assert row.started_at <= row.first_token_at <= row.ended_at


def test_a_job_with_a_large_spec_is_read_after_its_claim(backend: Backend, bench: Bench) -> None:
    small = spec(5)
    large = structs.replace(small, sampling=structs.replace(small.sampling, stop=("never" * 20_000,)))
    job_id = backend.put_job(large)

    assert wait_for_answer(bench.submit(job_id)) == "acknowledged"

    row, log = backend.row(job_id), backend.log(job_id)
    assert row.status is JobStatus.COMPLETED
    assert_whole(log, records.result_of(row))
    assert text_of(log) == foretold(5)


def test_choices_of_a_job_share_its_entries(backend: Backend, bench: Bench) -> None:
    job_id = backend.put_job(spec(5, num_choices=3))

    wait_for_answer(bench.submit(job_id))

    log = backend.log(job_id)
    assert_whole(log, records.result_of(backend.row(job_id)))
    assert len(tokens_of(log)) == 6
    assert [text_of(log, choice) for choice in range(3)] == [
        foretold(5, seed=choice_seed(11, choice)) for choice in range(3)
    ]


def test_a_job_that_reaches_its_limit_is_incomplete(backend: Backend, bench: Bench) -> None:
    job_id = backend.put_job(spec(50, max_tokens=4))

    wait_for_answer(bench.submit(job_id))

    row = backend.row(job_id)
    assert row.status is JobStatus.INCOMPLETE
    assert records.result_of(row).entries[-1][0].finish is FinishReason.LENGTH


def test_a_bad_job_fails_alone(backend: Backend) -> None:
    with running(backend, runner=FakeRunner(step_s=0.002)) as bench:
        good = backend.put_job(spec(40))
        bad = [backend.put_job(bad_spec(mark)) for mark in (BREAKS_STEP, NOT_FINITE)]
        too_long = backend.put_job(spec(5, max_tokens=5000))

        tickets = [bench.submit(job_id) for job_id in (good, *bad, too_long)]

        assert [wait_for_answer(ticket) for ticket in tickets] == ["acknowledged"] * 4
        codes = [(row.failure or {}).get("code") for row in map(backend.row, (*bad, too_long))]
        assert codes == ["engine_fault", "numerical_error", "context_length_exceeded"]
        assert text_of(backend.log(good)) == foretold(40)
        assert all(backend.is_closed(job_id) for job_id in bad)


def test_a_ticket_that_comes_twice_joins_the_running_job(backend: Backend) -> None:
    with running(backend, runner=FakeRunner(step_s=0.005)) as bench:
        job_id = backend.put_job(spec(30))

        first, second = bench.submit(job_id), bench.submit(job_id)

        assert [wait_for_answer(first), wait_for_answer(second)] == ["acknowledged"] * 2
        assert backend.row(job_id).attempt == 1
        assert wait_for_answer(bench.submit(job_id)) == "acknowledged"
        assert backend.row(job_id).attempt == 1


def test_a_ticket_of_another_workers_job_is_dropped(backend: Backend, bench: Bench) -> None:
    job_id = backend.put_job(spec(5))
    backend.claim(job_id)

    assert wait_for_answer(bench.submit(job_id)) == "acknowledged"
    assert backend.log(job_id) == []


def test_a_cancelled_job_stops_within_a_second(backend: Backend) -> None:
    with _generating(backend, num_entries=5) as (bench, job_id, ticket):
        backend.cancel(job_id, bench.worker_id)

        assert wait_for_answer(ticket, timeout_s=1.0) == "acknowledged"
        row, log = backend.row(job_id), backend.log(job_id)
        assert row.status is JobStatus.CANCELLED
        assert row.completion_tokens == len(tokens_of(log)) >= 5
        assert_whole(log, records.result_of(row))
        assert log[-1].end == records.end_of(row)


def test_a_cancel_whose_message_was_lost_is_found_by_the_beat(backend: Backend) -> None:
    with _generating(backend) as (_, job_id, ticket):
        backend.cancel(job_id)

        assert wait_for_answer(ticket, timeout_s=3.0) == "acknowledged"
        assert_whole(backend.log(job_id), records.result_of(backend.row(job_id)))


def test_an_erased_job_leaves_no_log(backend: Backend) -> None:
    with _generating(backend) as (_, job_id, ticket):
        with backend.database.begin() as connection:
            jobs.erase(connection, job_id, "alice")

        assert wait_for_answer(ticket, timeout_s=3.0) == "acknowledged"
        assert backend.log(job_id) == []


def test_a_worker_whose_log_another_attempt_took_over_falls_silent(backend: Backend) -> None:
    with _generating(backend) as (_, job_id, ticket):
        backend.requeue(job_id, 1)
        attempt = backend.claim(job_id)

        LogWriter(backend.redis, "another").append([start_row(job_id, attempt)])

        assert wait_for_answer(ticket, timeout_s=3.0) == "acknowledged"
        row = backend.row(job_id)
        assert (row.status, row.worker_id, row.attempt) == (JobStatus.IN_PROGRESS, "somebody", 2)
        assert backend.log(job_id)[-1].attempt == 2


def test_a_log_that_is_flushed_under_a_running_job_is_whole_again_at_the_next_step(backend: Backend) -> None:
    with running(backend, runner=FakeRunner(step_s=0.005)) as bench:
        job_id = backend.put_job(spec(120))
        ticket = bench.submit(job_id)
        for num_entries in (5, 20):
            backend.wait_for_tokens(job_id, num_entries)
            backend.redis.flushall()
            backend.wait_for_tokens(job_id, num_entries)

        assert wait_for_answer(ticket) == "acknowledged"
        log = backend.log(job_id)
        assert_whole(log, records.result_of(backend.row(job_id)))
        assert text_of(log) == foretold(120)


def test_a_ticket_of_the_next_attempt_is_not_lost_after_ownership_was_lost(backend: Backend) -> None:
    with running(backend, runner=FakeRunner(step_s=0.005)) as bench:
        job_id = backend.put_job(spec(200))
        first = bench.submit(job_id)
        backend.wait_for_tokens(job_id, 2)

        backend.requeue(job_id, 1)
        second = bench.submit(job_id)

        assert [wait_for_answer(first), wait_for_answer(second)] == ["acknowledged"] * 2
        row = backend.row(job_id)
        assert (row.status, row.attempt) == (JobStatus.COMPLETED, 2)
        assert text_of(backend.log(job_id)) == foretold(200)


def test_a_worker_that_ends_gives_its_jobs_back_and_another_goes_on(backend: Backend) -> None:
    with running(backend, runner=FakeRunner(step_s=0.005)) as bench:
        job_id = backend.put_job(spec(300))
        ticket = bench.submit(job_id)
        backend.wait_for_tokens(job_id, 5)
    assert wait_for_answer(ticket) == "given back"
    row = backend.row(job_id)
    assert (row.status, row.lost_attempts) == (JobStatus.QUEUED, 0)
    num_entries = len(tokens_of(backend.log(job_id)))

    with running(backend) as other:
        assert wait_for_answer(other.submit(job_id)) == "acknowledged"

    log = backend.log(job_id)
    assert_whole(log, records.result_of(backend.row(job_id)))
    assert text_of(log) == foretold(300)
    assert {entry.attempt for entry in tokens_of(log)} == {1, 2}
    assert len([entry for entry in tokens_of(log) if entry.attempt == 1]) == num_entries


def test_a_job_that_was_generated_but_not_committed_only_needs_its_commit(backend: Backend, bench: Bench) -> None:
    job_id = backend.put_job(spec(3))
    wait_for_answer(bench.submit(job_id))
    entries = records.result_of(backend.row(job_id)).entries
    died = backend.put_job(spec(3))
    rows = [tokens_row(died, 1, seq, events) for seq, events in enumerate(entries, start=1)]
    LogWriter(backend.redis, "dead").append([start_row(died, backend.claim(died)), *rows])
    backend.requeue(died, 1)
    num_steps = bench.runner.num_steps

    assert wait_for_answer(bench.submit(died)) == "acknowledged"

    row, log = backend.row(died), backend.log(died)
    assert (row.status, row.attempt) == (JobStatus.COMPLETED, 2)
    assert records.result_of(row).entries == entries
    assert [(entry.attempt, entry.seq) for entry in log][-2:] == [(2, 0), (2, 5)]
    assert bench.runner.num_steps == num_steps


def test_a_row_that_the_worker_does_not_know_is_given_back(backend: Backend, bench: Bench) -> None:
    job_id = backend.put_job(spec(3))

    backend.claim(job_id, bench.worker_id)

    backend.wait_for_status(job_id, JobStatus.QUEUED, timeout_s=3.0)
    assert backend.row(job_id).lost_attempts == 0


def test_a_restarted_worker_sends_tickets_of_its_jobs(backend: Backend) -> None:
    bench = Bench(backend)
    job_ids = [backend.put_job(spec(3)) for _ in range(2)]
    for job_id in job_ids:
        backend.claim(job_id, bench.worker_id)

    bench.process.start(lambda: None)
    try:
        # No sweeper runs here.
        tickets = cast(list[bytes], backend.redis.lrange(queue_of(MODEL), 0, -1))
    finally:
        bench.stop()

    assert sorted(json.loads(ticket)["headers"]["id"] for ticket in tickets) == sorted(job_ids)


def test_a_worker_tells_of_itself_and_its_model(backend: Backend) -> None:
    def status() -> WorkerStatus | None:
        with backend.database.connect() as connection:
            row = workers.find(connection, bench.worker_id)
        return None if row is None else row.status

    bench = Bench(backend)
    assert status() is None
    bench.process.start(lambda: None)
    assert status() is WorkerStatus.READY
    with backend.database.connect() as connection:
        assert manifests.get_manifest(connection, MANIFEST.model) == MANIFEST
        beat = workers.list_workers(connection)[0].beat
        assert workers.list_workers(connection)[0].slots == 64
    with backend.database.begin() as connection:
        workers.mark_dead(connection, bench.worker_id)
    wait_until(lambda: status() is WorkerStatus.READY, 3.0, "the return of a worker declared dead")
    with backend.database.connect() as connection:
        assert workers.list_workers(connection)[0].beat > beat
    bench.stop()
    assert status() is WorkerStatus.DEAD


def test_a_broken_engine_ends_the_worker_and_frees_its_jobs(backend: Backend) -> None:
    runner = FakeRunner(step_s=0.002)
    with running(backend, runner=runner) as bench:
        job_id = backend.put_job(spec(500))
        bench.submit(job_id)
        backend.wait_for_tokens(job_id, 2)
        runner.is_unusable = True
        bench.submit(backend.put_job(bad_spec(BREAKS_STEP)))

        assert bench.was_fatal.wait(5.0)
        assert bench.process.num_live == 0

    assert backend.row(job_id).status is JobStatus.QUEUED


def test_the_end_follows_the_commit(backend: Backend, bench: Bench) -> None:
    job_id = backend.put_job(spec(3))
    with backend.redis.pubsub() as tokens:
        tokens.subscribe(reader_channel("test"))
        # Redis' confirmation. The number of listeners confirms nothing: one of another test may not be gone yet.
        assert wait_until(lambda: tokens.get_message(timeout=0.01))["type"] == "subscribe"
        backend.redis.sadd(TAPS_KEY, "test")
        bench.submit(job_id)

        def end_came() -> bool:
            message = tokens.get_message(timeout=0.01)
            return message is not None and b'"status":"completed"' in message["data"]

        wait_until(end_came, 20.0, "the END")

    assert backend.row(job_id).status is JobStatus.COMPLETED
    assert backend.log(job_id)[-1].kind is EntryKind.END


def test_a_failure_is_in_row_and_log(backend: Backend, bench: Bench) -> None:
    job_id = backend.put_job(spec(5, max_tokens=5000))

    wait_for_answer(bench.submit(job_id))

    end = backend.log(job_id)[-1].end
    assert end is not None
    assert end.status is JobStatus.FAILED
    assert isinstance(end.failure, Failure)
    assert end == records.end_of(backend.row(job_id))


def test_a_model_that_does_not_load_leaves_its_reason(backend: Backend) -> None:
    bench = Bench(backend, failure=ModelFilesMissing("There is no config.json in /models/x"))

    with pytest.raises(ModelFilesMissing):
        bench.process.start(lambda: None)
    bench.stop()

    with backend.database.connect() as connection:
        row = workers.find(connection, bench.worker_id)
        failures = workers.list_failures(connection)
    assert row is not None
    assert row.status is WorkerStatus.DEAD
    assert failures[MODEL].reason == "There is no config.json in /models/x"
