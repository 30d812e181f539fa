"""Tries of the same call find one job: by its key, or by its digest; and the last one who waits decides."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Connection

from storage.accounts import idempotency
from storage.accounts.idempotency import KeyedRequest
from storage.contract import JobStatus
from storage.database.connections import Database
from storage.errors import IdempotencyKeyReused
from storage.jobs import attaching, jobs, recovery
from storage.jobs.attaching import Attached
from tests.storage.examples import NOW, RESULT, USAGE, after, new_job, put_job

DIGEST, OTHER_DIGEST = b"d" * 16, b"o" * 16
CALL = KeyedRequest(owner="alice", key="k", body_digest=DIGEST)
DAY_S = 86400


@pytest.fixture
def c(database: Database) -> Iterator[Connection]:
    with database.begin() as connection:
        yield connection


def _insert(c: Connection, call: KeyedRequest = CALL, *, seconds: float = 0, **changes: object) -> Attached | str:
    """The job that was found, or the id of the one that was made."""
    new, now = new_job(**changes), after(seconds)
    rows = jobs.rows_of(new, 600)
    found = attaching.insert_keyed(c, rows, call, now=now, expires_at=after(seconds + DAY_S))
    return new.job_id if found is None else found


def _made(made: Attached | str) -> str:
    assert isinstance(made, str)
    return made


def _status(c: Connection, job_id: str) -> JobStatus:
    job = jobs.find(c, job_id)
    assert job is not None
    return job.status


def _retry(c: Connection, num_retries: int = 1, *, digest: bytes = DIGEST, since: float = -600) -> Attached | None:
    return attaching.attach_retry(c, "alice", digest, num_retries, after(since))


# --- keys ---


def test_a_key_makes_one_job(c: Connection) -> None:
    job_id = _made(_insert(c))

    assert _insert(c) == Attached(job_id=job_id, number=1)
    assert attaching.attach_keyed(c, CALL, after(5)) == Attached(job_id=job_id, number=2)
    assert len(jobs.list_all(c)) == 1


def test_a_key_is_of_one_owner_and_one_call(c: Connection) -> None:
    _insert(c)
    other = KeyedRequest(owner="alice", key="k", body_digest=OTHER_DIGEST)

    with pytest.raises(IdempotencyKeyReused):
        attaching.attach_keyed(c, other, NOW)
    with pytest.raises(IdempotencyKeyReused):
        _insert(c, other)
    assert isinstance(_insert(c, KeyedRequest(owner="bob", key="k", body_digest=OTHER_DIGEST)), str)


def test_an_expired_key_is_free_and_then_forgotten(c: Connection) -> None:
    first = _made(_insert(c))
    almost = attaching.attach_keyed(c, CALL, after(DAY_S - 1))
    late = KeyedRequest(owner="alice", key="k", body_digest=OTHER_DIGEST)

    assert almost == Attached(job_id=first, number=1)
    assert attaching.attach_keyed(c, late, after(DAY_S)) is None
    second = _made(_insert(c, late, seconds=DAY_S))
    assert idempotency.forget_expired(c, after(2 * DAY_S - 1)) == 0
    assert attaching.attach_keyed(c, late, after(DAY_S + 1)) == Attached(job_id=second, number=1)
    assert idempotency.forget_expired(c, after(2 * DAY_S)) == 1
    assert idempotency.forget_expired(c, after(2 * DAY_S)) == 0


def test_expired_keys_are_forgotten_in_batches(c: Connection) -> None:
    for number in range(5):
        _insert(c, KeyedRequest(owner="alice", key=f"k{number}", body_digest=DIGEST))

    assert [idempotency.forget_expired(c, after(DAY_S), limit=3) for _ in range(3)] == [3, 2, 0]


@pytest.mark.parametrize("way", ["owner", "sweeper", "unanswered"])
def test_an_erased_job_takes_its_key_along(c: Connection, way: str) -> None:
    job_id = _made(_insert(c))
    kept = _made(_insert(c, KeyedRequest(owner="alice", key="other", body_digest=DIGEST)))
    match way:
        case "owner":
            jobs.erase(c, job_id, "alice")
        case "sweeper":
            recovery.erase_many(c, [job_id])
        case _:
            attaching.compensating_delete(c, [job_id])

    assert idempotency.find(c, CALL, NOW) is None
    assert idempotency.find(c, KeyedRequest(owner="alice", key="other", body_digest=DIGEST), NOW) == kept
    assert isinstance(_insert(c), str)


def test_a_job_with_an_attached_request_is_not_deleted(c: Connection) -> None:
    job_id = _made(_insert(c))
    attaching.attach_keyed(c, CALL, NOW)

    attaching.compensating_delete(c, [job_id])

    assert jobs.find(c, job_id) is not None
    assert idempotency.find(c, CALL, NOW) == job_id


def test_a_foreground_job_that_was_given_up_frees_its_key(c: Connection) -> None:
    given_up = _made(_insert(c))
    jobs.cancel(c, given_up, after(1), num_attached=0)

    again = _made(_insert(c))

    assert again != given_up
    assert attaching.attach_keyed(c, CALL, NOW) == Attached(job_id=again, number=1)


def test_a_background_job_that_was_cancelled_keeps_its_key(c: Connection) -> None:
    job_id = _made(_insert(c, background=True))
    jobs.cancel(c, job_id, after(1))

    assert _insert(c) == Attached(job_id=job_id, number=1)


def test_a_job_that_was_cancelled_at_its_deadline_keeps_its_key(c: Connection) -> None:
    job_id = _made(_insert(c, cancel_at=after(5)))
    jobs.cancel(c, job_id, after(5))

    assert _insert(c) == Attached(job_id=job_id, number=1)


def test_a_job_that_was_given_up_before_its_deadline_frees_its_key(c: Connection) -> None:
    job_id = _made(_insert(c, cancel_at=after(5)))
    jobs.cancel(c, job_id, after(4), num_attached=0)

    assert isinstance(_insert(c), str)


def test_of_many_calls_with_one_key_at_once_one_makes_the_job(database: Database) -> None:
    start = threading.Barrier(8)

    def call(_: int) -> Attached | str:
        start.wait(10)
        with database.begin() as c:
            return _insert(c)

    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(call, range(8)))

    [job_id] = [one for one in made if isinstance(one, str)]
    attached = [one for one in made if isinstance(one, Attached)]
    assert {one.job_id for one in attached} == {job_id}
    assert sorted(one.number for one in attached) == list(range(1, 8))


# --- retries without a key ---


def test_a_retry_joins_the_newest_job_of_the_same_call(c: Connection) -> None:
    put_job(c, body_digest=DIGEST, created_at=after(1))
    newest = put_job(c, body_digest=DIGEST, created_at=after(2))
    put_job(c, body_digest=OTHER_DIGEST, created_at=after(3))
    put_job(c, body_digest=DIGEST, created_at=after(3), owner="bob")
    put_job(c, created_at=after(3))

    assert _retry(c) == Attached(job_id=newest, number=1)
    assert _retry(c, digest=b"n" * 16) is None


def test_a_retry_joins_an_ended_job_but_no_old_one(c: Connection) -> None:
    job_id = put_job(c, body_digest=DIGEST)
    assert jobs.claim(c, job_id, "w1", after(1))
    assert jobs.complete(c, job_id, 1, status=JobStatus.COMPLETED, result=RESULT, usage=USAGE, now=after(2))

    assert _retry(c) == Attached(job_id=job_id, number=1)
    assert _retry(c, since=0) is None


def test_a_retry_of_a_call_that_was_given_up_makes_a_new_job(c: Connection) -> None:
    job_id = put_job(c, body_digest=DIGEST)
    put_job(c, body_digest=DIGEST, created_at=after(-1))
    jobs.cancel(c, job_id, after(1), num_attached=0)

    assert _retry(c) is None


def test_retries_of_calls_that_are_alike_find_a_job_each(c: Connection) -> None:
    made = {put_job(c, body_digest=DIGEST, created_at=after(number)) for number in range(4)}

    first = [_retry(c) for _ in range(4)]
    second = [_retry(c, 2) for _ in range(4)]
    one_too_many = _retry(c)

    assert {one.job_id for one in first if one} == made
    assert {one.job_id for one in second if one} == made
    assert one_too_many is not None


# --- who decides ---


def test_who_leaves_before_anybody_joined_cancels_the_job(c: Connection) -> None:
    job_id = put_job(c, body_digest=DIGEST)

    assert jobs.cancel(c, job_id, after(1), num_attached=0)
    assert attaching.attach(c, job_id) is None
    assert _status(c, job_id) is JobStatus.CANCELLED


def test_who_leaves_after_somebody_joined_cancels_nothing(c: Connection) -> None:
    job_id = put_job(c, body_digest=DIGEST)

    assert attaching.attach(c, job_id) == 1
    assert jobs.cancel(c, job_id, after(1), num_attached=0) is None
    assert _status(c, job_id) is JobStatus.QUEUED


def test_the_last_who_joined_decides(c: Connection) -> None:
    job_id = put_job(c, body_digest=DIGEST)
    numbers = [attaching.attach(c, job_id) for _ in range(3)]

    assert numbers == [1, 2, 3]
    assert [jobs.cancel(c, job_id, after(1), num_attached=number) for number in (0, 1, 2)] == [None] * 3
    assert jobs.cancel(c, job_id, after(1), num_attached=3)


def test_a_job_that_is_absent_cannot_be_joined(c: Connection) -> None:
    assert attaching.attach(c, "resp_absent") is None
    attaching.compensating_delete(c, ["resp_absent"])


def test_joining_and_leaving_at_once_agree(database: Database) -> None:
    """Whatever comes first: the job runs if and only if somebody joined it."""
    with database.begin() as c:
        job_ids = [put_job(c, body_digest=DIGEST) for _ in range(20)]
    start = threading.Barrier(2)

    def join(job_id: str) -> bool:
        start.wait(10)
        with database.begin() as c:
            return attaching.attach(c, job_id) is not None

    def leave(job_id: str) -> bool:
        start.wait(10)
        with database.begin() as c:
            return jobs.cancel(c, job_id, after(1), num_attached=0) is not None

    with ThreadPoolExecutor(2) as threads:
        for job_id in job_ids:
            joining, leaving = threads.submit(join, job_id), threads.submit(leave, job_id)
            has_joined, has_cancelled = joining.result(10), leaving.result(10)
            assert has_joined != has_cancelled
            with database.connect() as c:
                assert (_status(c, job_id) is JobStatus.CANCELLED) == has_cancelled
