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
from tests.workers.harness import FakeHub, FakeTicket, Ground, assert_whole, load, text_of, wait_for_answer
from workers.generation.dispatch import Dispatcher
from workers.generation.engine_thread import EngineThread
from workers.generation.ports import Road
from workers.publishing.publisher import Publisher, Watch


class FlakyWriter(Writer):
    """A writer whose next commits fail, before or after they took effect."""

    num_lost = 0
    num_unheard = 0

    def submit(self, operation: Callable[[Connection], Any]) -> "Future[Any]":
        if self.num_lost:
            self.num_lost -= 1
            return _failed()
        if self.num_unheard:
            self.num_unheard -= 1
            super().submit(operation).result(5.0)
            return _failed()
        return super().submit(operation)


def _failed() -> "Future[Any]":
    future: Future[Any] = Future()
    future.set_exception(StorageUnavailable("the database does not answer"))
    return future


class Flaky:
    """A dispatcher on a flaky writer; what it puts off waits in `later`."""

    def __init__(self, ground: Ground) -> None:
        self.later: list[Callable[[], None]] = []
        self.errors: list[BaseException] = []
        self.hub = FakeHub()
        self.writer = FlakyWriter(ground.database)
        self.engine = EngineThread(lambda: load(FakeRunner(0.001)), self.errors.append)
        self.publisher = Publisher(
            lambda: LogWriter(connect_once(ground.settings.redis_url), "flaky"),
            partial(read_log, ground.redis),
            self.errors.append,
        )
        road = Road(
            writer=self.writer,
            engine=self.engine,
            publisher=self.publisher,
            on_hub=self.hub.call_soon,
            later=self.later.append,
            tails=partial(list_tails, ground.redis),
            drop_log=lambda job_id: delete_logs(ground.redis, [job_id]),
            read_spec=lambda job_id, then: then(ground.spec(job_id)),
        )
        self.dispatcher = Dispatcher("flaky", road)
        self.writer.start()
        self.publisher.start(Watch(on_fenced=self.dispatcher.on_fenced, missing=self.dispatcher.missing))
        self.engine.start(self.dispatcher.on_step)

    def submit(self, job_id: str) -> FakeTicket:
        """Deliver a ticket."""
        ticket = FakeTicket()
        self.hub.call_soon(lambda: self.dispatcher.accept(job_id, ticket))
        return ticket

    def try_again(self) -> None:
        """What the beat does, once something waits for it."""
        wait_until(lambda: self.later)
        self.later.pop(0)()

    def stop(self) -> None:
        self.engine.stop(5.0)
        self.publisher.stop(5.0)
        self.writer.stop()
        self.hub.stop()


@pytest.fixture
def flaky(ground: Ground) -> Iterator[Flaky]:
    made = Flaky(ground)
    yield made
    made.stop()
    assert made.errors == []


def test_a_ticket_goes_back_to_the_queue_when_its_claim_fails(ground: Ground, flaky: Flaky) -> None:
    job_id = ground.put_job(spec(5))
    flaky.writer.num_lost = 1
    ticket = flaky.submit(job_id)

    wait_until(lambda: flaky.later)
    assert ticket.answers == []
    flaky.try_again()

    assert wait_for_answer(ticket) == "given back"
    assert ground.log(job_id) == []
    assert wait_for_answer(flaky.submit(job_id)) == "acknowledged"
    assert text_of(ground.log(job_id)) == foretold(5)


def test_a_job_that_began_before_its_claim_failed_says_nothing(ground: Ground, flaky: Flaky) -> None:
    job_id = ground.put_job(spec(500))
    flaky.writer.num_unheard = 1
    ticket = flaky.submit(job_id)
    flaky.try_again()

    assert wait_for_answer(ticket) == "given back"
    assert ground.log(job_id) == []
    # The row is ours all the same; the beat gives it back (see test_process).
    assert ground.row(job_id).status is JobStatus.IN_PROGRESS
    wait_until(lambda: not flaky.dispatcher.running())


def test_an_outcome_is_stored_when_the_database_is_back(ground: Ground, flaky: Flaky) -> None:
    job_id = ground.put_job(spec(300))
    ticket = flaky.submit(job_id)
    ground.wait_for_tokens(job_id, 1)
    flaky.writer.num_lost = 2

    flaky.try_again()
    assert ground.row(job_id).status is JobStatus.IN_PROGRESS
    flaky.try_again()

    assert wait_for_answer(ticket) == "acknowledged"
    assert_whole(ground.log(job_id), records.result_of(ground.row(job_id)))


def test_an_outcome_that_was_stored_unheard_is_told_once(ground: Ground, flaky: Flaky) -> None:
    job_id = ground.put_job(spec(300))
    ticket = flaky.submit(job_id)
    ground.wait_for_tokens(job_id, 1)
    flaky.writer.num_unheard = 1

    flaky.try_again()

    assert wait_for_answer(ticket) == "acknowledged"
    row, log = ground.row(job_id), ground.log(job_id)
    assert row.status is JobStatus.COMPLETED
    assert_whole(log, records.result_of(row))
    assert log[-1].end == records.end_of(row)
