"""The end of a job is reported once, in the transaction that ends it, and costs nothing where no endpoint exists."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, event, select

from storage.contract import Failure, JobStatus
from storage.database.connections import Database
from storage.database.group_commit import Writer
from storage.database.table_definitions import table_of
from storage.jobs import jobs, recovery
from storage.webhooks import endpoints
from storage.webhooks.tables import WebhookEvent
from tests.storage.examples import RESULT, USAGE, after, put_endpoint, put_job

FAILURE = Failure(code="numerical_error", message="The model computed no number.")
_event = table_of(WebhookEvent)


def _complete(c: Connection, job_id: str, status: JobStatus = JobStatus.COMPLETED) -> object:
    return jobs.complete(c, job_id, 1, status=status, result=RESULT, usage=USAGE, now=after(5))


def _lose(c: Connection, job_id: str) -> object:
    return recovery.requeue_of_dead_workers(c, ["gone"], max_lost_attempts=1, now=after(5)).failed


ENDS: dict[str, Callable[[Connection, str], object]] = {
    "completed": _complete,
    "incomplete": lambda c, job_id: _complete(c, job_id, JobStatus.INCOMPLETE),
    "failed": lambda c, job_id: jobs.fail(c, job_id, 1, FAILURE, None, None, after(5)),
    "cancelled": lambda c, job_id: jobs.cancel(c, job_id, after(5)),
    "failed, its workers lost": _lose,
}


@pytest.fixture
def c(database: Database) -> Iterator[Connection]:
    with database.begin() as connection:
        yield connection


def _running(c: Connection, **changes: Any) -> str:
    job_id = put_job(c, **changes)
    assert jobs.claim(c, job_id, "gone", after(1))
    return job_id


def _types(c: Connection) -> list[str]:
    return list(c.execute(select(_event.c.type)).scalars())


@pytest.mark.parametrize("end", ENDS)
def test_every_end_is_reported_once(c: Connection, end: str) -> None:
    put_endpoint(c)
    job_id = _running(c)

    assert ENDS[end](c, job_id)
    assert not ENDS[end](c, job_id)

    [reported] = c.execute(select(_event)).all()
    assert (reported.type, reported.job_id, reported.owner) == (
        f"chat.completion.{end.partition(',')[0]}",
        job_id,
        "alice",
    )
    assert (reported.created_at, reported.target) == (after(5), None)


@pytest.mark.parametrize("end", ENDS)
def test_nobody_listens_and_nothing_is_written(c: Connection, end: str) -> None:
    put_endpoint(c, owner="bob")
    assert ENDS[end](c, _running(c))
    assert _types(c) == []


def test_what_is_no_end_is_not_reported(c: Connection) -> None:
    put_endpoint(c)
    job_id = _running(c)
    assert jobs.requeue(c, job_id, 1)
    assert jobs.claim(c, job_id, "gone", after(3))
    assert recovery.requeue_of_dead_workers(c, ["gone"], max_lost_attempts=3, now=after(4)).tickets
    assert jobs.erase(c, job_id, "alice")
    assert _types(c) == []


def test_an_end_that_is_written_twice_is_reported_once(database: Database) -> None:
    with database.begin() as c:
        job_id = _running(c, webhook={"url": "https://example.com/"})

    def complete(c: Connection) -> object:
        return _complete(c, job_id)

    def fail(c: Connection) -> None:
        raise ArithmeticError

    # All wait when the writer begins, so that they share a transaction, in which one fails.
    writer = Writer(database)
    writer._is_open = True
    done, failed, again = writer.submit(complete), writer.submit(fail), writer.submit(complete)
    writer.start()
    assert done.result(5)
    assert isinstance(failed.exception(5), ArithmeticError)
    assert not again.result(5)
    writer.stop()

    with database.connect() as c:
        assert _types(c) == ["chat.completion.completed"]


@pytest.mark.parametrize(("is_subscribed", "num_statements"), [(False, 3), (True, 4)])
def test_the_end_of_a_job_costs_a_statement_more_only_where_somebody_listens(
    database: Database, is_subscribed: bool, num_statements: int
) -> None:
    with database.begin() as c:
        job_id = _running(c)
        disabled = put_endpoint(c)
        endpoints.update_endpoint(c, disabled.id, "alice", is_enabled=False, now=after(1))
        put_endpoint(c, owner="alice" if is_subscribed else "bob")
    statements: list[str] = []

    with database.begin() as c:
        event.listen(c, "before_cursor_execute", lambda *call: statements.append(call[2]))
        assert _complete(c, job_id)

    assert [statement.partition(" ")[0] for statement in statements] == ["UPDATE", "INSERT", "INSERT", "INSERT"][
        :num_statements
    ]
