"""Every change of a job's status, and what can be asked about jobs."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Connection

from storage.contract import End, Failure, JobKind, JobStatus, Result, TokenEvent, Usage
from storage.database.connections import Database
from storage.database.group_commit import Writer
from storage.errors import InvalidRequest, JobNotFound
from storage.jobs import jobs, records
from storage.jobs.records import JobRecord
from storage.jobs.transitions import LEGAL, sources_of
from tests.storage.examples import NOW, RESULT, SPEC, USAGE, after, new_job, put_job

FAILURE = Failure(code="numerical_error", message="The model computed no number.")


@pytest.fixture
def c(database: Database) -> Iterator[Connection]:
    with database.begin() as connection:
        yield connection


def _find(c: Connection, job_id: str) -> JobRecord:
    job = jobs.find(c, job_id)
    assert job is not None
    return job


def _claimed(c: Connection, **changes: Any) -> tuple[str, int]:
    job_id = put_job(c, **changes)
    claim = jobs.claim(c, job_id, "w1", after(1))
    assert claim is not None
    return job_id, claim.attempt


def test_a_new_job_is_read_as_it_was_written(database: Database, writer: Writer) -> None:
    new = new_job(context={"input_items": [1, "ü"]}, background=True)
    writer.insert(*jobs.rows_of(new, 600)).result(5)

    with database.connect() as c:
        job = jobs.get(c, new.job_id, "alice")
        assert jobs.get_spec(c, new.job_id) == SPEC
    assert (job.owner, job.kind, job.model, job.status) == ("alice", JobKind.CHAT, "demo", JobStatus.QUEUED)
    assert (job.attempt, job.worker_id, job.lost_attempts) == (0, None, 0)
    assert job.created_at == NOW
    assert job.sent_at != NOW
    assert (job.started_at, job.ended_at, job.erase_at) == (None, None, None)
    assert job.metadata_ == {"project": "x"}
    assert records.result_of(job) == Result()
    assert records.end_of(job) is None
    header = records.header_of(job)
    assert (header.job_id, header.request, header.context) == (new.job_id, new.request, new.context)
    assert (header.background, header.created_at) == (True, int(NOW.timestamp()))


@pytest.mark.parametrize("job_id", ["resp_absent", "", "a\x00b", "ü", "x" * 1000, "'; DROP TABLE job; --"])
def test_what_is_no_id_of_a_job_is_not_found(c: Connection, job_id: str) -> None:
    assert jobs.find(c, job_id) is None
    assert jobs.cancel(c, job_id, NOW) is None
    for call in (jobs.get, jobs.erase):
        with pytest.raises(JobNotFound):
            call(c, job_id, "alice")
    with pytest.raises(JobNotFound):
        jobs.update_metadata(c, job_id, "alice", {})


def test_another_owners_job_is_not_found(c: Connection) -> None:
    job_id = put_job(c)
    for call in (jobs.get, jobs.erase):
        with pytest.raises(JobNotFound):
            call(c, job_id, "bob")
    with pytest.raises(JobNotFound):
        jobs.update_metadata(c, job_id, "bob", {"mine": "now"})
    assert _find(c, job_id).metadata_ == {"project": "x"}


def test_a_claim_gives_the_job_to_one_worker(c: Connection) -> None:
    job_id = put_job(c)
    claim = jobs.claim(c, job_id, "w1", after(1))

    assert claim == jobs.Claim(attempt=1, model="demo", spec=SPEC, owner="alice")
    assert jobs.claim(c, job_id, "w2", after(2)) is None
    job = _find(c, job_id)
    assert (job.status, job.worker_id, job.started_at) == (JobStatus.IN_PROGRESS, "w1", after(1))


def test_of_many_claims_at_once_one_wins(database: Database) -> None:
    with database.begin() as c:
        job_ids = [put_job(c) for _ in range(10)]

    def claim_all(worker_id: str) -> list[str]:
        won = []
        for job_id in job_ids:
            with database.begin() as c:
                if jobs.claim(c, job_id, worker_id, NOW):
                    won.append(job_id)
        return won

    with ThreadPoolExecutor(4) as threads:
        won = [job_id for ids in threads.map(claim_all, ("w1", "w2", "w3", "w4")) for job_id in ids]
    assert sorted(won) == sorted(job_ids)


@pytest.mark.parametrize("status", [JobStatus.COMPLETED, JobStatus.INCOMPLETE])
def test_a_completed_job_keeps_everything_that_came_of_it(c: Connection, status: JobStatus) -> None:
    job_id, attempt = _claimed(c)
    assert jobs.complete(c, job_id, attempt, status=status, result=RESULT, usage=USAGE, now=after(5))

    job = _find(c, job_id)
    assert records.result_of(job) == RESULT
    assert records.end_of(job) == End(status=status, usage=USAGE, ended_at=int(after(5).timestamp()))
    assert job.ended_at == after(5)


def test_a_failed_job_says_why_and_keeps_what_it_had(c: Connection) -> None:
    job_id, attempt = _claimed(c)
    assert jobs.fail(c, job_id, attempt, FAILURE, RESULT, USAGE, after(5))

    job = _find(c, job_id)
    assert records.result_of(job) == RESULT
    ended_at = int(after(5).timestamp())
    assert records.end_of(job) == End(status=JobStatus.FAILED, usage=USAGE, ended_at=ended_at, failure=FAILURE)


def test_a_job_can_fail_with_nothing(c: Connection) -> None:
    job_id, attempt = _claimed(c)
    assert jobs.fail(c, job_id, attempt, FAILURE, None, None, after(5))
    job = _find(c, job_id)
    assert (records.result_of(job), records.usage_of(job)) == (Result(), None)


Finish = Callable[[Connection, str, int], bool]
FINISHES: dict[str, Finish] = {
    "complete": lambda c, job_id, attempt: jobs.complete(
        c, job_id, attempt, status=JobStatus.COMPLETED, result=RESULT, usage=USAGE, now=after(9)
    ),
    "fail": lambda c, job_id, attempt: jobs.fail(c, job_id, attempt, FAILURE, RESULT, USAGE, after(9)),
    "requeue": jobs.requeue,
}


@pytest.mark.parametrize("finish", FINISHES.values(), ids=FINISHES.keys())
def test_a_zombie_changes_nothing(c: Connection, finish: Finish) -> None:
    job_id, old = _claimed(c)
    assert jobs.requeue(c, job_id, old)
    # Given back and not yet claimed again: the old attempt's number is still the row's.
    assert not finish(c, job_id, old)
    assert _find(c, job_id).status is JobStatus.QUEUED

    newer = jobs.claim(c, job_id, "w2", after(3))
    assert newer is not None
    assert newer.attempt == old + 1
    assert not finish(c, job_id, old)
    assert not jobs.settle_stopped(c, job_id, old, RESULT, USAGE)
    job = _find(c, job_id)
    assert (job.status, job.worker_id, job.result) == (JobStatus.IN_PROGRESS, "w2", None)


@pytest.mark.parametrize("finish", FINISHES.values(), ids=FINISHES.keys())
def test_nothing_follows_an_end(c: Connection, finish: Finish) -> None:
    for end in ("complete", "fail", "cancel"):
        job_id, attempt = _claimed(c)
        if end == "cancel":
            assert jobs.cancel(c, job_id, after(5))
        else:
            assert FINISHES[end](c, job_id, attempt)
        before = _find(c, job_id)

        assert not finish(c, job_id, attempt)
        assert jobs.claim(c, job_id, "w2", after(6)) is None
        assert jobs.cancel(c, job_id, after(6)) is None
        assert _find(c, job_id) == before


def test_a_drained_job_waits_again_and_lost_nothing(c: Connection) -> None:
    job_id, attempt = _claimed(c)
    assert jobs.requeue(c, job_id, attempt)
    job = _find(c, job_id)
    assert (job.status, job.worker_id, job.lost_attempts) == (JobStatus.QUEUED, None, 0)
    assert job.sent_at != NOW


def test_a_queued_job_is_cancelled_without_a_worker(c: Connection) -> None:
    job_id = put_job(c)
    assert jobs.cancel(c, job_id, after(1)) == jobs.Cancelled(was=JobStatus.QUEUED, worker_id=None, attempt=0)
    assert records.end_of(_find(c, job_id)) == End(
        status=JobStatus.CANCELLED, usage=None, ended_at=int(after(1).timestamp())
    )
    assert jobs.claim(c, job_id, "w1", after(2)) is None


def test_a_job_given_back_is_cancelled_as_a_queued_one(c: Connection) -> None:
    job_id, attempt = _claimed(c)
    jobs.requeue(c, job_id, attempt)
    assert jobs.cancel(c, job_id, after(3)) == jobs.Cancelled(was=JobStatus.QUEUED, worker_id=None, attempt=1)


def test_a_running_job_is_cancelled_at_once_and_settled_by_its_worker(c: Connection) -> None:
    job_id, attempt = _claimed(c)
    cancelled = jobs.cancel(c, job_id, after(2))
    assert cancelled == jobs.Cancelled(was=JobStatus.IN_PROGRESS, worker_id="w1", attempt=attempt)
    assert not FINISHES["complete"](c, job_id, attempt)

    assert jobs.settle_stopped(c, job_id, attempt, RESULT, USAGE)
    job = _find(c, job_id)
    assert (job.status, job.ended_at, records.usage_of(job)) == (JobStatus.CANCELLED, after(2), USAGE)
    assert records.result_of(job) == RESULT


def test_an_orphan_is_settled_once_and_its_worker_comes_too_late(c: Connection) -> None:
    job_id, attempt = _claimed(c)
    jobs.cancel(c, job_id, after(2))
    partial = Result(entries=((TokenEvent(choice=0, token_ids=(1,), text="a"),),))
    usage = Usage(prompt_tokens=4, completion_tokens=1)
    assert jobs.settle_orphan(c, job_id, attempt, partial, usage)

    assert not jobs.settle_orphan(c, job_id, attempt, RESULT, USAGE)
    assert not jobs.settle_stopped(c, job_id, attempt, RESULT, USAGE)
    job = _find(c, job_id)
    assert (job.attempt, records.usage_of(job), records.result_of(job)) == (attempt + 1, usage, partial)


def test_a_worker_that_settled_first_keeps_its_word(c: Connection) -> None:
    job_id, attempt = _claimed(c)
    jobs.cancel(c, job_id, after(2))
    jobs.settle_stopped(c, job_id, attempt, RESULT, USAGE)
    assert not jobs.settle_orphan(c, job_id, attempt, Result(), None)
    assert records.result_of(_find(c, job_id)) == RESULT


@pytest.mark.parametrize("retention_s", [0, 600, 30 * 86400])
def test_a_job_is_kept_for_its_time_after_its_end(c: Connection, retention_s: int) -> None:
    ends = []
    for end in ("complete", "fail"):
        job_id, attempt = _claimed(c, retention_s=retention_s)
        FINISHES[end](c, job_id, attempt)
        ends.append(job_id)
    ends.append(put_job(c, retention_s=retention_s))
    jobs.cancel(c, ends[-1], after(9))
    for job_id in ends:
        erase_at = _find(c, job_id).erase_at
        assert erase_at is not None
        # SQLite computes it to the millisecond.
        assert abs((erase_at - after(9 + retention_s)).total_seconds()) < 0.001


def test_metadata_can_be_replaced(c: Connection) -> None:
    job_id = put_job(c)
    jobs.update_metadata(c, job_id, "alice", {"a": "ü", "b": ""})
    assert _find(c, job_id).metadata_ == {"a": "ü", "b": ""}


def test_nul_in_metadata_is_refused_on_every_database(c: Connection) -> None:
    job_id = put_job(c)
    for metadata in ({"a": "\x00"}, {"\x00": "a"}):
        with pytest.raises(InvalidRequest) as refused:
            jobs.update_metadata(c, job_id, "alice", metadata)
        assert refused.value.param == "metadata"
        with pytest.raises(InvalidRequest):
            jobs.rows_of(new_job(metadata=metadata), 600)


def test_an_erased_job_is_gone_and_its_worker_writes_nothing(c: Connection) -> None:
    job_id, attempt = _claimed(c)
    erased = jobs.erase(c, job_id, "alice")
    assert erased == jobs.Cancelled(was=JobStatus.IN_PROGRESS, worker_id="w1", attempt=1)
    assert jobs.find(c, job_id) is None
    assert not FINISHES["complete"](c, job_id, attempt)


def test_running_jobs_are_listed_by_worker_and_states_by_id(c: Connection) -> None:
    running, attempt = _claimed(c)
    cancelled, _ = _claimed(c)
    jobs.cancel(c, cancelled, after(2))
    queued = put_job(c)

    assert jobs.list_running_of(c, "w1") == [
        jobs.JobState(job_id=running, attempt=attempt, status=JobStatus.IN_PROGRESS, worker_id="w1")
    ]
    assert jobs.list_running_of(c, "w2") == []
    states = {state.job_id: state.status for state in jobs.list_states(c, [running, cancelled, queued, "absent"])}
    assert states == {
        running: JobStatus.IN_PROGRESS,
        cancelled: JobStatus.CANCELLED,
        queued: JobStatus.QUEUED,
    }
    assert jobs.list_states(c, []) == []


def test_operators_list_the_newest_jobs_first(c: Connection) -> None:
    ids = [put_job(c, created_at=after(number), owner="ab"[number % 2]) for number in range(4)]
    jobs.cancel(c, ids[0], after(9))

    assert [job.id for job in jobs.list_all(c)] == ids[::-1]
    assert [job.id for job in jobs.list_all(c, limit=1)] == ids[3:]
    assert [job.id for job in jobs.list_all(c, status=JobStatus.CANCELLED)] == ids[:1]
    assert [job.id for job in jobs.list_all(c, owner="b", model="demo")] == [ids[3], ids[1]]


def test_every_legal_change_has_a_cause_and_ends_are_final() -> None:
    for status in JobStatus:
        assert (LEGAL[status] == frozenset()) is status.is_terminal
    assert sources_of(JobStatus.COMPLETED) == {JobStatus.IN_PROGRESS}
    assert sources_of(JobStatus.CANCELLED) == {JobStatus.QUEUED, JobStatus.IN_PROGRESS}
