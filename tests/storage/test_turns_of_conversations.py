"""Turns: one open job of a conversation, whose end adds its items, on both databases."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from sqlalchemy import Connection, event, update
from sqlalchemy.exc import IntegrityError

from storage.accounts.idempotency import KeyedRequest
from storage.contract import Failure, JobKind, JobStatus
from storage.conversations import conversation_items, conversation_rows
from storage.conversations.conversation_items import POSITIONS_OF_TURN, new_items
from storage.database.connections import Database
from storage.database.table_definitions import table_of
from storage.errors import ConversationNotFound, ConversationTooLarge, InvalidRequest
from storage.jobs import deadlines, jobs, recovery
from storage.jobs.attaching import Attached
from storage.jobs.records import NewJob
from storage.jobs.tables import Job, JobInput
from storage.turns import turns
from storage.turns.turns import NotStarted, OpenTurn
from tests.storage.examples import NOW, RESULT, USAGE, after, new_job, put_job

TURN = new_items({"id": item_id, "type": "message", "role": "user"} for item_id in ("in", "out"))


@pytest.fixture
def c(database: Database) -> Iterator[Connection]:
    with database.begin() as connection:
        conversation_rows.create(connection, "conv_1", "alice", {}, NOW)
        yield connection


def _new(position: int, **changes: Any) -> NewJob:
    return new_job(kind=JobKind.RESPONSE, **{"conversation_id": "conv_1", "conversation_position": position, **changes})


def _start(
    c: Connection, new: NewJob, *item_ids: str | None, keyed: KeyedRequest | None = None
) -> Attached | NotStarted | None:
    return turns.start(c, new, jobs.rows_of(new, 600), keyed, item_ids=item_ids, key_expires_at=after(60))


def _running(c: Connection, position: int = 0, **changes: Any) -> str:
    new = _new(position, **changes)
    assert _start(c, new) is None
    claim = jobs.claim(c, new.job_id, "w1", after(1))
    assert claim is not None
    assert claim.is_turn
    return new.job_id


def _complete(c: Connection, job_id: str, status: JobStatus = JobStatus.COMPLETED, attempt: int = 1) -> bool:
    return jobs.complete(c, job_id, attempt, status=status, result=RESULT, usage=USAGE, now=after(5), turn=TURN)


def _ids(c: Connection, conversation_id: str = "conv_1") -> list[str]:
    page = conversation_items.list_page(c, conversation_id, after=None, limit=100, is_newest_first=False)
    return [str(item["id"]) for item in page.items]


def test_a_conversation_has_one_open_turn_until_it_ends(c: Connection) -> None:
    first = _running(c)
    assert turns.find_open(c, "conv_1") == OpenTurn(job_id=first, position=0)
    assert _start(c, _new(POSITIONS_OF_TURN)) is NotStarted.LOCKED

    assert _complete(c, first)

    assert turns.find_open(c, "conv_1") is None
    assert _start(c, _new(POSITIONS_OF_TURN)) is None


def test_the_database_holds_no_two_open_turns(database: Database, c: Connection) -> None:
    put_job(c, conversation_id="conv_1", conversation_position=0)

    with pytest.raises(IntegrityError), c.begin_nested():
        put_job(c, conversation_id="conv_1", conversation_position=POSITIONS_OF_TURN)
    put_job(c, conversation_id="conv_2", conversation_position=0)


def test_a_turn_for_an_older_conversation_is_not_started(c: Connection) -> None:
    conversation_items.add(c, conversation_rows.lock(c, "conv_1", "alice"), new_items([{"id": "a"}]), max_bytes=999)

    assert _start(c, _new(0)) is NotStarted.CHANGED
    assert _start(c, _new(1)) is None


@pytest.mark.parametrize("status", [JobStatus.COMPLETED, JobStatus.INCOMPLETE])
def test_the_end_of_a_turn_adds_its_items_before_those_that_came_meanwhile(c: Connection, status: JobStatus) -> None:
    job_id = _running(c)
    conversation_items.add(c, conversation_rows.lock(c, "conv_1", "alice"), new_items([{"id": "b"}]), max_bytes=999)

    assert _complete(c, job_id, status)
    assert not _complete(c, job_id, status)

    assert _ids(c) == ["in", "out", "b"]
    row = conversation_rows.get(c, "conv_1", "alice")
    added = [*TURN, *new_items([{"id": "b"}])]
    assert (row.num_items, row.num_bytes) == (3, sum(item.num_bytes for item in added))


def _cancel(c: Connection, job_id: str) -> object:
    return jobs.cancel(c, job_id, after(5))


def _fail(c: Connection, job_id: str) -> object:
    return jobs.fail(c, job_id, 1, Failure(code="numerical_error", message="no"), RESULT, USAGE, after(5))


def _expire(c: Connection, job_id: str) -> object:
    c.execute(update(table_of(Job)).values(expires_at=NOW))
    return deadlines.end_overdue(c, after(5))


def _lose(c: Connection, job_id: str) -> object:
    return recovery.requeue_of_dead_workers(c, ["w1"], max_lost_attempts=1, now=after(5)).failed


def _erase(c: Connection, job_id: str) -> object:
    return jobs.erase(c, job_id, "alice")


@pytest.mark.parametrize("end", [_cancel, _fail, _expire, _lose, _erase])
def test_a_turn_without_an_answer_adds_nothing_and_frees_the_conversation(c: Connection, end: Any) -> None:
    job_id = _running(c)

    assert end(c, job_id)

    assert not _complete(c, job_id)
    assert _ids(c) == []
    second = _running(c, POSITIONS_OF_TURN)
    assert _complete(c, second)
    assert _ids(c) == ["in", "out"]


def test_a_turn_that_lost_its_worker_is_added_once_by_the_next(c: Connection) -> None:
    job_id = _running(c)
    assert recovery.requeue_of_dead_workers(c, ["w1"], max_lost_attempts=3, now=after(2)).tickets
    assert turns.find_open(c, "conv_1") is not None
    assert jobs.claim(c, job_id, "w2", after(3))

    assert not _complete(c, job_id, attempt=1)
    assert _complete(c, job_id, attempt=2)

    assert _ids(c) == ["in", "out"]


def test_a_turn_of_a_deleted_conversation_adds_nothing(c: Connection) -> None:
    job_id = _running(c)
    conversation_rows.delete_whole(c, "conv_1", "alice", NOW)

    assert _complete(c, job_id)

    assert _ids(c) == []
    with pytest.raises(ConversationNotFound) as refused:
        _start(c, _new(POSITIONS_OF_TURN))
    assert refused.value.param == "conversation"


def test_a_turn_with_an_id_that_is_taken_or_with_too_many_items_is_refused(
    c: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _complete(c, _running(c))

    for item_ids in ((None, "out"), ("x", "x")):
        with pytest.raises(InvalidRequest) as refused:
            _start(c, _new(POSITIONS_OF_TURN), *item_ids)
        assert refused.value.param == "input[1].id"
    monkeypatch.setattr(conversation_items, "MAX_ITEMS", 3)
    with pytest.raises(ConversationTooLarge):
        _start(c, _new(POSITIONS_OF_TURN), None, None)
    assert _start(c, _new(POSITIONS_OF_TURN), None) is None


def test_a_keyed_turn_is_found_again_while_it_is_open(c: Connection) -> None:
    keyed = KeyedRequest(owner="alice", key="k", body_digest=b"x")
    new = _new(0)
    assert _start(c, new, keyed=keyed) is None

    again = _start(c, _new(POSITIONS_OF_TURN), keyed=keyed)

    assert again == Attached(job_id=new.job_id, number=1)


def test_an_open_turn_is_found_by_its_index(c: Connection) -> None:
    for number in range(50):
        put_job(c, conversation_id=f"conv_{number}x", conversation_position=0)

    if c.dialect.name == "sqlite":
        query = str(turns._OPEN.compile(dialect=c.dialect)).replace("?", "'conv_1x'")
        [plan] = c.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}").all()
        assert "ix_job_open_turn" in plan[3]
    assert turns.find_open(c, "conv_7x") is not None


def _statements(c: Connection, operation: Any) -> list[str]:
    noted: list[str] = []

    def note(*call: Any) -> None:  # Any: an event's arguments
        noted.append(call[2])

    event.listen(c, "before_cursor_execute", note)
    operation()
    event.remove(c, "before_cursor_execute", note)
    return noted


def test_the_end_of_a_job_without_a_conversation_costs_no_further_statement(c: Connection) -> None:
    job_id = put_job(c)

    claiming = _statements(c, lambda: jobs.claim(c, job_id, "w1", after(1)))
    ending = _statements(
        c,
        lambda: jobs.complete(c, job_id, 1, status=JobStatus.COMPLETED, result=RESULT, usage=USAGE, now=after(5)),
    )

    assert len(claiming) == 1
    assert [statement.split()[:3] for statement in ending] == [
        ["UPDATE", "job", "SET"],
        ["INSERT", "INTO", "job_result"],
        ["INSERT", "INTO", "attempt"],
    ]


def test_a_worker_of_an_older_version_claims_no_turn(c: Connection) -> None:
    job_ids: Sequence[str] = [_running(c), put_job(c)]

    versions = [
        c.execute(table_of(JobInput).select().where(table_of(JobInput).c.job_id == job_id)).one().spec_version
        for job_id in job_ids
    ]

    assert versions == [3, 1]
