"""What a worker does when the database or Redis is away for a moment."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection

from storage.broker.event_log import LogWriter, delete_logs, list_tails, read_log
from storage.broker.redis_client import connect_once
from storage.contract import JobStatus
from storage.database.group_commit import Writer
from storage.errors import StorageUnavailable
from storage.jobs import records
from tests.fakes import FakeRunner, foretold, spec
from tests.waiting import wait_until
from tests.workers.harness import Backend, FakeEventLoop, FakeTicket, assert_whole, load, text_of, wait_for_answer
from workers.generation.engine_thread import EngineThread
from workers.generation.pipeline.pipeline import Pipeline
from workers.generation.pipeline.ports import Ports
from workers.publishing.publisher import Publisher, Watch


class FlakyWriter(Writer):
    """A writer whose next commits fail, before or after they took effect."""

    num_lost = 0
    num_replies_lost = 0

    def submit(
        self, operation: Callable[[Connection], Any], *, on_executed: Callable[[Any], None] | None = None
    ) -> "Future[Any]":
        if self.num_lost:
            self.num_lost -= 1
            return _failed()
        if self.num_replies_lost:
            self.num_replies_lost -= 1
            super().submit(operation, on_executed=on_executed).result(5.0)
            return _failed()
        return super().submit(operation, on_executed=on_executed)


def _failed() -> "Future[Any]":
    future: Future[Any] = Future()
    future.set_exception(StorageUnavailable("the database does not answer"))
    return future


class Flaky:
    """A pipeline on a flaky writer; what it puts off waits in `later`."""

    def __init__(self, backend: Backend) -> None:
        self.later: list[Callable[[], None]] = []
        self.errors: list[BaseException] = []
        self.event_loop = FakeEventLoop()
        self.writer = FlakyWriter(backend.database)
        self.engine = EngineThread(lambda: load(FakeRunner(0.001)), self.errors.append)
        self.publisher = Publisher(
            lambda: LogWriter(connect_once(backend.settings.redis_url), "flaky"),
            partial(read_log, backend.redis),
            self.errors.append,
        )
        ports = Ports(
            writer=self.writer,
            engine=self.engine,
            publisher=self.publisher,
            on_event_loop=self.event_loop.call_soon,
            later=self.later.append,
            tails=partial(list_tails, backend.redis),
            drop_log=lambda job_id: delete_logs(backend.redis, [job_id]),
            on_grammar_thread=lambda call: call(),
            read_header=lambda job_id, then: then(backend.header(job_id)),
            read_spec=lambda job_id, then: then(backend.spec(job_id)),
        )
        self.pipeline = Pipeline("flaky", ports)
        self.writer.start()
        self.publisher.start(Watch(on_fenced=self.pipeline.on_fenced, missing=self.pipeline.missing))
        self.engine.start(self.pipeline.on_step)

    def submit(self, job_id: str) -> FakeTicket:
        """Deliver a ticket."""
        ticket = FakeTicket()
        self.event_loop.call_soon(lambda: self.pipeline.accept(job_id, ticket))
        return ticket

    def try_again(self) -> None:
        """What the beat does, once something waits for it."""
        wait_until(lambda: self.later)
        self.later.pop(0)()

    def stop(self) -> None:
        self.engine.stop(5.0)
        self.publisher.stop(5.0)
        self.writer.stop()
        self.event_loop.stop()


@pytest.fixture
def flaky(backend: Backend) -> Iterator[Flaky]:
    made = Flaky(backend)
    yield made
    made.stop()
    assert made.errors == []


def test_a_ticket_goes_back_to_the_queue_when_its_claim_fails(backend: Backend, flaky: Flaky) -> None:
    job_id = backend.put_job(spec(5))
    flaky.writer.num_lost = 1
    ticket = flaky.submit(job_id)

    wait_until(lambda: flaky.later)
    assert ticket.answers == []
    flaky.try_again()

    assert wait_for_answer(ticket) == "given back"
    assert backend.log(job_id) == []
    assert wait_for_answer(flaky.submit(job_id)) == "acknowledged"
    assert text_of(backend.log(job_id)) == foretold(5)


def test_a_job_that_began_before_its_claim_failed_says_nothing(backend: Backend, flaky: Flaky) -> None:
    job_id = backend.put_job(spec(500))
    flaky.writer.num_replies_lost = 1
    ticket = flaky.submit(job_id)
    flaky.try_again()

    assert wait_for_answer(ticket) == "given back"
    assert backend.log(job_id) == []
    # The row is ours all the same; the beat gives it back (see test_process).
    assert backend.row(job_id).status is JobStatus.IN_PROGRESS
    wait_until(lambda: not flaky.pipeline.running())


def test_an_outcome_is_stored_when_the_database_is_back(backend: Backend, flaky: Flaky) -> None:
    job_id = backend.put_job(spec(300))
    ticket = flaky.submit(job_id)
    backend.wait_for_tokens(job_id, 1)
    flaky.writer.num_lost = 2

    flaky.try_again()
    assert backend.row(job_id).status is JobStatus.IN_PROGRESS
    flaky.try_again()

    assert wait_for_answer(ticket) == "acknowledged"
    assert_whole(backend.log(job_id), records.result_of(backend.row(job_id)))


def test_an_outcome_whose_commit_reply_was_lost_is_published_once(backend: Backend, flaky: Flaky) -> None:
    job_id = backend.put_job(spec(300))
    ticket = flaky.submit(job_id)
    backend.wait_for_tokens(job_id, 1)
    flaky.writer.num_replies_lost = 1

    flaky.try_again()

    assert wait_for_answer(ticket) == "acknowledged"
    row, log = backend.row(job_id), backend.log(job_id)
    assert row.status is JobStatus.COMPLETED
    assert_whole(log, records.result_of(row))
    assert log[-1].end == records.end_of(row)


def test_the_items_of_a_turn_are_added_once_though_the_commits_reply_was_lost(backend: Backend, flaky: Flaky) -> None:
    job_id = backend.put_turn(spec(300))
    ticket = flaky.submit(job_id)
    backend.wait_for_tokens(job_id, 1)
    flaky.writer.num_lost = 1
    wait_until(lambda: flaky.later)
    assert backend.items() == []

    flaky.writer.num_replies_lost = 1
    flaky.try_again()
    flaky.try_again()

    assert wait_for_answer(ticket) == "acknowledged"
    assert backend.row(job_id).status is JobStatus.COMPLETED
    said, answered = backend.items()
    assert (said["role"], answered["role"]) == ("user", "assistant")
    [part] = answered["content"]  # type: ignore[misc]  # JSON values
    assert part["text"] == foretold(300)
