"""Which stored chats and responses a list shows, and in which order."""

import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Connection, event, text

from storage.contract import Failure, JobKind, JobStatus
from storage.database.connections import Database
from storage.database.migration import migrate
from storage.jobs import jobs, records, recovery, stored_lists
from storage.jobs.tables import RARE_ENDS
from tests.storage.examples import RESULT, USAGE, after, put_job


@pytest.fixture
def c(database: Database) -> Iterator[Connection]:
    with database.begin() as connection:
        yield connection


def _stored_chat(c: Connection, number: int, **changes: object) -> str:
    job_id = put_job(c, job_id=f"chatcmpl-{number:032x}", **changes)
    _complete(c, job_id)
    return job_id


def _complete(c: Connection, job_id: str) -> None:
    assert jobs.claim(c, job_id, "w1", after(1))
    assert jobs.complete(c, job_id, 1, status=JobStatus.COMPLETED, result=RESULT, usage=USAGE, now=after(9))


def test_stored_chats_are_listed_by_age_in_pages(c: Connection) -> None:
    ids = [_stored_chat(c, number) for number in range(5)]
    _stored_chat(c, 10, owner="bob")
    _stored_chat(c, 11, store=False)
    put_job(c, job_id=f"chatcmpl-{12:032x}")
    _complete(c, put_job(c, kind=JobKind.RESPONSE))

    assert [job.id for job in stored_lists.list_chats(c, "alice")] == ids
    assert [job.id for job in stored_lists.list_chats(c, "alice", limit=2)] == ids[:2]
    assert [job.id for job in stored_lists.list_chats(c, "alice", after=ids[1], limit=2)] == ids[2:4]
    assert [job.id for job in stored_lists.list_chats(c, "alice", is_newest_first=True, after=ids[3])] == ids[2::-1]
    first = stored_lists.list_chats(c, "alice", limit=1)[0]
    assert records.result_of(first) == RESULT
    assert records.header_of(first).request["temperature"] == 0.5


def test_stored_chats_are_filtered_by_model_and_metadata(c: Connection) -> None:
    odd_key = 'a "quoted".key[0]$ \\ \n ü'
    plain = _stored_chat(c, 1)
    other = _stored_chat(c, 2, model="other", metadata={"project": "x", odd_key: "y'z"})

    def ids(**filters: object) -> list[str]:
        return [job.id for job in stored_lists.list_chats(c, "alice", **filters)]  # type: ignore[arg-type]  # filters by name

    assert ids(metadata={"project": "x"}) == [plain, other]
    assert ids(metadata={"project": "x", odd_key: "y'z"}) == [other]
    assert ids(metadata={"project": "1"}) == []
    assert ids(metadata={"absent": "x"}) == []
    assert ids(model="other") == [other]
    for hostile in ({"model": "\x00"}, {"after": "\x00"}, {"metadata": {"\x00": "x"}}, {"metadata": {"x": "\x00"}}):
        assert ids(**hostile) == []


def test_a_metadata_filter_follows_updates_and_erasure(c: Connection) -> None:
    kept, changed, erased = (_stored_chat(c, number, metadata={"team": "a"}) for number in range(3))
    jobs.update_metadata(c, changed, "alice", {"team": "b", "other": "c"})
    recovery.erase_many(c, [erased])

    def ids(metadata: dict[str, str]) -> list[str]:
        return [job.id for job in stored_lists.list_chats(c, "alice", metadata=metadata)]

    assert ids({"team": "a"}) == [kept]
    assert ids({"team": "b"}) == ids({"team": "b", "other": "c"}) == [changed]
    assert ids({"team": "a", "other": "c"}) == []
    assert c.execute(text("SELECT count(*) FROM chat_metadata WHERE job_id = :id"), {"id": erased}).scalar_one() == 0


def test_a_metadata_filter_reads_its_index_and_no_other_chats(sqlite_database: Database) -> None:
    asked: list[tuple[str, tuple[object, ...]]] = []
    with sqlite_database.begin() as connection:
        event.listen(connection, "before_cursor_execute", lambda *given: asked.append((given[2], given[3])))
        stored_lists.list_chats(connection, "alice", metadata={"a": "b", "c": "d"}, after="x", is_newest_first=True)
        statement, values = asked[-1]
        plan = [row.detail for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)]

    assert "chat_metadata USING" in plan[0], plan
    assert "(owner=? AND key=? AND value=? AND job_id<?)" in plan[0], plan
    assert not any("SCAN" in step or "TEMP B-TREE" in step for step in plan), plan


def test_chats_of_older_versions_are_indexed_by_the_migration(c: Connection) -> None:
    module = importlib.import_module("storage.database.migrations.versions.0010_derived_tables")
    chats = [_stored_chat(c, number, metadata={"team": "a"}) for number in range(5)]
    c.execute(text("DELETE FROM chat_metadata"))
    c.execute(text("CREATE TABLE chat_metadata_progress (job_id VARCHAR NOT NULL)"))
    c.execute(text("INSERT INTO chat_metadata_progress (job_id) VALUES ('')"))

    assert module.count_left(c) == 5
    assert [module.move(c, 2) for _ in range(4)] == [2, 2, 1, 0]

    assert [job.id for job in stored_lists.list_chats(c, "alice", metadata={"team": "a"})] == chats


def _put_response(c: Connection, number: int, status: JobStatus = JobStatus.COMPLETED, **changes: object) -> str:
    job_id = put_job(c, job_id=f"resp_{number:032x}", kind=JobKind.RESPONSE, **changes)
    if status is not JobStatus.QUEUED:
        assert jobs.claim(c, job_id, "w1", after(1))
    if status in (JobStatus.COMPLETED, JobStatus.INCOMPLETE):
        assert jobs.complete(c, job_id, 1, status=status, result=RESULT, usage=USAGE, now=after(9))
    elif status is JobStatus.FAILED:
        assert jobs.fail(c, job_id, 1, Failure(code="x", message="y"), None, None, after(9))
    elif status is JobStatus.CANCELLED:
        assert jobs.cancel(c, job_id, after(9))
    return job_id


def _response_ids(c: Connection, **filters: object) -> list[str]:
    return [job.id for job in stored_lists.list_responses(c, "alice", **filters)]  # type: ignore[arg-type]  # by name


def test_stored_responses_are_listed_in_pages_whatever_their_status(c: Connection) -> None:
    ids = [_put_response(c, number, status) for number, status in enumerate(JobStatus)]
    _put_response(c, 10, owner="bob")
    _put_response(c, 11, store=False)
    _stored_chat(c, 12)

    assert _response_ids(c) == ids[::-1]
    assert _response_ids(c, limit=2, after=ids[3]) == [ids[2], ids[1]]
    assert _response_ids(c, is_newest_first=False, after=ids[3]) == ids[4:]
    for job_id, status in zip(ids, JobStatus, strict=True):
        assert _response_ids(c, status=status) == [job_id]


def test_stored_responses_are_filtered_by_model_and_metadata(c: Connection) -> None:
    first = _put_response(c, 1, metadata={"team": "a"})
    second = _put_response(c, 2, JobStatus.QUEUED, metadata={"team": "a", "run": "1"}, model="other")
    _put_response(c, 3, metadata={})

    assert _response_ids(c, metadata={"team": "a"}) == [second, first]
    assert _response_ids(c, metadata={"team": "a", "run": "1"}) == [second]
    assert _response_ids(c, metadata={"team": "a"}, status=JobStatus.QUEUED) == [second]
    assert _response_ids(c, model="other", status=JobStatus.COMPLETED) == []
    assert _response_ids(c, model="other") == [second]
    assert _response_ids(c, metadata={"team": "\x00"}) == []
    jobs.erase(c, first, "alice")
    assert c.execute(text("SELECT count(*) FROM response_metadata WHERE job_id = :id"), {"id": first}).scalar() == 0


def test_a_list_of_responses_of_a_model_reads_their_index(sqlite_database: Database) -> None:
    asked: list[tuple[str, tuple[object, ...]]] = []
    with sqlite_database.begin() as connection:
        event.listen(connection, "before_cursor_execute", lambda *given: asked.append((given[2], given[3])))
        stored_lists.list_responses(connection, "alice", model="demo", after="x")
        statement, values = asked[-1]
        plan = [row.detail for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)]

    assert "ix_job_response_of_model (owner=? AND model=? AND id<?)" in plan[0], plan
    assert not any("SCAN" in step or "TEMP B-TREE" in step for step in plan), plan


@pytest.mark.parametrize("status", [None, *JobStatus])
@pytest.mark.parametrize("metadata", [{}, {"a": "b"}])
def test_a_list_of_responses_reads_an_index(
    sqlite_database: Database, status: JobStatus | None, metadata: dict[str, str]
) -> None:
    asked: list[tuple[str, tuple[object, ...]]] = []
    with sqlite_database.begin() as connection:
        event.listen(connection, "before_cursor_execute", lambda *given: asked.append((given[2], given[3])))
        stored_lists.list_responses(connection, "alice", status=status, metadata=metadata, after="x")
        statement, values = asked[-1]
        plan = [row.detail for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)]

    expected = "ix_job_rare_response" if status is not None and status.value in RARE_ENDS else "ix_job_stored_response"
    assert ("response_metadata USING" if metadata else expected) in plan[0], plan
    scanned = [step for step in plan if "SCAN" in step]
    # Of the few jobs that are open.
    assert all("ix_job_queued" in step or "ix_job_running" in step for step in scanned), plan
    assert not any("TEMP B-TREE" in step for step in plan), plan


def test_responses_of_older_versions_are_indexed_by_the_migration(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/old.db"
    migrate(url)
    database = Database(url)
    with database.begin() as connection:
        job_id = _put_response(connection, 1, metadata={"team": "a"})
        _put_response(connection, 2, metadata={})
        module = importlib.import_module("storage.database.migrations.versions.0017_stored_responses")
        with Operations.context(MigrationContext.configure(connection)):
            module.downgrade()
            module.upgrade()
        assert _response_ids(connection, metadata={"team": "a"}) == [job_id]
    database.dispose()
