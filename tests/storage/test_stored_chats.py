"""Which stored chats a list shows, and in which order."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection

from storage.contract import JobKind, JobStatus
from storage.database.connections import Database
from storage.jobs import jobs, records, stored_chats
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

    assert [job.id for job in stored_chats.list_stored(c, "alice")] == ids
    assert [job.id for job in stored_chats.list_stored(c, "alice", limit=2)] == ids[:2]
    assert [job.id for job in stored_chats.list_stored(c, "alice", after=ids[1], limit=2)] == ids[2:4]
    assert [job.id for job in stored_chats.list_stored(c, "alice", is_newest_first=True, after=ids[3])] == ids[2::-1]
    first = stored_chats.list_stored(c, "alice", limit=1)[0]
    assert records.result_of(first) == RESULT
    assert records.header_of(first).request["temperature"] == 0.5


def test_stored_chats_are_filtered_by_model_and_metadata(c: Connection) -> None:
    odd_key = 'a "quoted".key[0]$ \\ \n ü'
    plain = _stored_chat(c, 1)
    other = _stored_chat(c, 2, model="other", metadata={"project": "x", odd_key: "y'z"})

    def ids(**filters: object) -> list[str]:
        return [job.id for job in stored_chats.list_stored(c, "alice", **filters)]  # type: ignore[arg-type]  # filters by name

    assert ids(metadata={"project": "x"}) == [plain, other]
    assert ids(metadata={"project": "x", odd_key: "y'z"}) == [other]
    assert ids(metadata={"project": "1"}) == []
    assert ids(metadata={"absent": "x"}) == []
    assert ids(model="other") == [other]
    for hostile in ({"model": "\x00"}, {"after": "\x00"}, {"metadata": {"\x00": "x"}}, {"metadata": {"x": "\x00"}}):
        assert ids(**hostile) == []
