"""Compensating deletes: rows of refused jobs are erased, also after an outage of the database."""

from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from typing import Any

import pytest
from sqlalchemy import Connection
from structlog.testing import capture_logs

from api.jobs.compensating_delete import CompensatingDelete
from storage.database.connections import Database
from storage.database.group_commit import Writer
from storage.errors import StorageUnavailable
from storage.jobs import attaching, jobs
from tests.storage.examples import put_job
from tests.waiting import wait_until_async


class AwayWriter(Writer):
    """Its operations fail so many times."""

    def __init__(self, database: Database, num_failures: int) -> None:
        super().__init__(database)
        self.num_failures = num_failures
        self.error: Exception = StorageUnavailable("away")

    def submit(self, operation: Callable[[Connection], Any]) -> Future[Any]:
        if self.num_failures == 0:
            return super().submit(operation)
        self.num_failures -= 1
        failed: Future[Any] = Future()
        failed.set_exception(self.error)
        return failed


@pytest.fixture
async def writer(database: Database) -> AsyncIterator[AwayWriter]:
    running = AwayWriter(database, num_failures=4)
    running.start()
    yield running
    running.stop()


@pytest.fixture
async def compensating_delete(writer: AwayWriter) -> AsyncIterator[CompensatingDelete]:
    running = CompensatingDelete(writer, every_s=0.01)
    await running.start()
    yield running
    await running.stop()


def _left(database: Database) -> set[str]:
    with database.connect() as c:
        return {job.id for job in jobs.list_all(c)}


async def test_what_cannot_be_erased_now_is_erased_later_unless_it_was_joined(
    compensating_delete: CompensatingDelete, writer: AwayWriter, database: Database
) -> None:
    with database.begin() as c:
        unwanted, others, joined = [put_job(c), put_job(c)], put_job(c), put_job(c)
        attaching.attach(c, joined)

    for job_id in (*unwanted, joined):
        compensating_delete.erase(job_id)

    await wait_until_async(lambda: _left(database) == {others, joined})
    assert writer.num_failures == 0


async def test_it_is_done_at_once_where_the_database_is_there(writer: AwayWriter, database: Database) -> None:
    writer.num_failures = 0
    with database.begin() as c:
        job_id = put_job(c)

    # Not even started: nothing has to be looked after.
    CompensatingDelete(writer, every_s=60).erase(job_id)

    await wait_until_async(lambda: not _left(database))


async def test_what_fails_for_another_reason_is_logged_and_left(
    compensating_delete: CompensatingDelete, writer: AwayWriter
) -> None:
    writer.error = ValueError("broken")

    with capture_logs() as said:
        compensating_delete.erase("resp_x")

    assert [(entry["event"], entry["error"]) for entry in said] == [("compensating_delete_failed", "broken")]
    assert compensating_delete._failed.empty()
