"""Which stored chats a list shows, and in which order."""

import importlib
from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, event, text

from storage.contract import JobKind, JobStatus
from storage.database.connections import Database
from storage.jobs import jobs, records, recovery, stored_lists
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

    assert [job.id for job in stored_lists.list_stored(c, "alice")] == ids
    assert [job.id for job in stored_lists.list_stored(c, "alice", limit=2)] == ids[:2]
    assert [job.id for job in stored_lists.list_stored(c, "alice", after=ids[1], limit=2)] == ids[2:4]
    assert [job.id for job in stored_lists.list_stored(c, "alice", is_newest_first=True, after=ids[3])] == ids[2::-1]
    first = stored_lists.list_stored(c, "alice", limit=1)[0]
    assert records.result_of(first) == RESULT
    assert records.header_of(first).request["temperature"] == 0.5


def test_stored_chats_are_filtered_by_model_and_metadata(c: Connection) -> None:
    odd_key = 'a "quoted".key[0]$ \\ \n ü'
    plain = _stored_chat(c, 1)
    other = _stored_chat(c, 2, model="other", metadata={"project": "x", odd_key: "y'z"})

    def ids(**filters: object) -> list[str]:
        return [job.id for job in stored_lists.list_stored(c, "alice", **filters)]  # type: ignore[arg-type]  # filters by name

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
        return [job.id for job in stored_lists.list_stored(c, "alice", metadata=metadata)]

    assert ids({"team": "a"}) == [kept]
    assert ids({"team": "b"}) == ids({"team": "b", "other": "c"}) == [changed]
    assert ids({"team": "a", "other": "c"}) == []
    assert c.execute(text("SELECT count(*) FROM chat_metadata WHERE job_id = :id"), {"id": erased}).scalar_one() == 0


def test_a_metadata_filter_reads_its_index_and_no_other_chats(sqlite_database: Database) -> None:
    asked: list[tuple[str, tuple[object, ...]]] = []
    with sqlite_database.begin() as connection:
        event.listen(connection, "before_cursor_execute", lambda *given: asked.append((given[2], given[3])))
        stored_lists.list_stored(connection, "alice", metadata={"a": "b", "c": "d"}, after="x", is_newest_first=True)
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

    assert [job.id for job in stored_lists.list_stored(c, "alice", metadata={"team": "a"})] == chats
