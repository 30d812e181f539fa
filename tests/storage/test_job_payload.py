"""A job's small row, its payload in tables of its own, and the timeline of its attempts."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from sqlalchemy import Connection, event, func, select, update

from storage.contract import JobKind, JobStatus, OutputFormat
from storage.database.connections import Database
from storage.database.group_commit import Writer
from storage.database.table_definitions import table_of
from storage.errors import FormatUnknown, JobNotFound
from storage.jobs import attempts, jobs, records, recovery
from storage.jobs.tables import Attempt, Job, JobInput, JobResult
from tests.storage.examples import NOW, RESULT, SPEC, USAGE, after, new_job, put_job

_input = table_of(JobInput)
_result = table_of(JobResult)
TABLES = (Job, JobInput, JobResult, Attempt)
_READ_BYTES = Path("/proc/thread-self/io")


@pytest.fixture
def c(database: Database) -> Iterator[Connection]:
    with database.begin() as connection:
        yield connection


def _count(c: Connection) -> list[int]:
    return [c.execute(select(func.count()).select_from(table_of(table))).scalar_one() for table in TABLES]


def _num_read() -> int:
    """Bytes that this thread has read, from the page cache too."""
    return int(_READ_BYTES.read_text().split()[1])


def _complete(c: Connection, job_id: str) -> bool:
    return jobs.complete(
        c, job_id, 1, status=JobStatus.COMPLETED, result=RESULT, usage=USAGE, now=after(9), first_token_at=after(3)
    )


def test_many_new_jobs_are_few_statements_for_each_table(database: Database, writer: Writer) -> None:
    inserts: list[tuple[str, bool]] = []

    def note(*call: Any) -> None:  # Any: an event's arguments
        if call[2].startswith("INSERT"):
            inserts.append((call[2].split()[2], call[5]))

    new = [new_job(created_at=after(number)) for number in range(37)]
    with database.begin() as c:
        event.listen(c.engine, "before_cursor_execute", note)
        # The writer waits for this transaction, so that all of them are one group.
        blocked = writer.submit(lambda _: None)
        done = [writer.insert(*jobs.rows_of(one, 600)) for one in new]
    for future in (blocked, *done):
        future.result(5)

    # Of 32 and 5 rows; none of them is run once for each row.
    assert inserts == 2 * [("job", False)] + 2 * [("job_input", False)]
    with database.connect() as c:
        stored = [jobs.get(c, one.job_id, "alice") for one in new]
        assert [job.created_at for job in stored] == [one.created_at for one in new]
        assert [(job.request, job.metadata_) for job in stored] == [(one.request, one.metadata) for one in new]
        assert [jobs.get_spec(c, one.job_id) for one in new] == [SPEC] * len(new)


@pytest.mark.skipif(not _READ_BYTES.exists(), reason="the kernel does not count what a thread reads")
def test_a_claim_reads_no_more_where_the_request_is_large(sqlite_url: str) -> None:
    database = Database(sqlite_url)
    with database.begin() as c:
        small, large = put_job(c), put_job(c, context={"input": "word " * 200_000})
    database.dispose()

    def read_bytes(job_id: str) -> int:
        # A new connection, which has no pages in its cache.
        fresh = Database(sqlite_url)
        with fresh.begin() as c:
            c.exec_driver_sql("SELECT count(*) FROM sqlite_schema")
            before = _num_read()
            assert jobs.claim(c, job_id, "w1", after(1)) is not None
            num_read = _num_read() - before
        fresh.dispose()
        return num_read

    assert read_bytes(large) - read_bytes(small) < 64_000


def test_a_claim_leaves_a_large_spec_out(c: Connection) -> None:
    large = structs.replace(SPEC, prompts=(tuple(range(70_000)),))
    job_id = put_job(c, spec=large)

    claim = jobs.claim(c, job_id, "w1", after(1))

    assert claim is not None
    assert claim.spec is None
    assert jobs.get_spec(c, job_id) == large
    with pytest.raises(JobNotFound):
        jobs.get_spec(c, "resp_absent")


def test_a_claim_brings_a_small_spec_along(c: Connection) -> None:
    claim = jobs.claim(c, put_job(c), "w1", after(1))
    assert claim is not None
    assert claim.spec == SPEC


def test_a_job_waits_in_the_queue_of_the_model_that_serves_it(c: Connection) -> None:
    job_id = put_job(c, model="alias", served_model="demo")

    assert [model for model, _ in recovery.list_queues(c)] == ["demo"]
    claim = jobs.claim(c, job_id, "w1", after(1))
    assert claim is not None
    assert claim.model == "demo"
    assert records.header_of(jobs.get(c, job_id, "alice")).model == "alias"


def test_a_job_of_a_later_format_is_left_to_a_later_version(c: Connection) -> None:
    """As during a rolling upgrade: this version neither claims nor reads it, and does not fail it."""
    kinds, versions = [put_job(c) for _ in range(2)]
    c.execute(update(_input).where(_input.c.job_id == kinds).values(spec_kind="transcription"))
    c.execute(update(_input).where(_input.c.job_id == versions).values(spec_version=4))

    for job_id in (kinds, versions):
        assert jobs.claim(c, job_id, "w1", after(1)) is None
        assert jobs.get(c, job_id, "alice").status is JobStatus.QUEUED
        with pytest.raises(FormatUnknown):
            jobs.get_spec(c, job_id)


def test_a_worker_that_knows_no_output_formats_leaves_constrained_jobs_alone(c: Connection) -> None:
    plain, constrained = put_job(c), put_job(c, spec=structs.replace(SPEC, output=OutputFormat(grammar="start: /a/")))

    version_by_job = dict(c.execute(select(_input.c.job_id, _input.c.spec_version)).all())

    # Such a worker claims version 1.
    assert version_by_job == {plain: 1, constrained: 2}
    assert jobs.get_spec(c, constrained).output == OutputFormat(grammar="start: /a/")


def test_a_result_of_a_later_format_is_not_misread(c: Connection) -> None:
    job_id = put_job(c)
    jobs.claim(c, job_id, "w1", after(1))
    assert _complete(c, job_id)
    c.execute(update(_result).values(result_version=2))

    with pytest.raises(FormatUnknown):
        records.result_of(jobs.get(c, job_id, "alice"))


def test_every_ended_attempt_is_in_the_timeline(c: Connection) -> None:
    job_id = put_job(c)
    assert jobs.claim(c, job_id, "w1", after(1))
    assert jobs.requeue(c, job_id, 1)
    assert jobs.claim(c, job_id, "w2", after(2))
    assert recovery.requeue_of_dead_workers(c, ["w2"], max_lost_attempts=3, now=after(3)).tickets
    assert jobs.claim(c, job_id, "w3", after(4))
    done = jobs.complete(
        c, job_id, 3, status=JobStatus.INCOMPLETE, result=RESULT, usage=USAGE, now=after(9), first_token_at=after(5)
    )

    assert done
    timeline = attempts.list_attempts(c, job_id)
    assert [(one.number, one.worker_id, one.outcome) for one in timeline] == [
        (1, "w1", "requeued"),
        (2, "w2", "worker_lost"),
        (3, "w3", "incomplete"),
    ]
    assert [one.claimed_at for one in timeline] == [after(1), after(2), after(4)]
    assert (timeline[2].first_token_at, timeline[2].ended_at) == (after(5), after(9))
    assert jobs.get(c, job_id, "alice").first_token_at == after(5)


def test_a_job_that_no_worker_ran_has_no_attempt(c: Connection) -> None:
    job_id = put_job(c)
    assert jobs.cancel(c, job_id, NOW)
    assert attempts.list_attempts(c, job_id) == []


def test_erasing_a_job_leaves_nothing_of_it(c: Connection) -> None:
    for _ in range(2):
        job_id = put_job(c)
        jobs.claim(c, job_id, "w1", after(1))
        assert _complete(c, job_id)
    assert _count(c) == [2, 2, 2, 2]

    jobs.erase(c, job_id, "alice")

    assert _count(c) == [1, 1, 1, 1]


def test_the_input_of_an_erased_job_stays_while_another_continues_it(c: Connection) -> None:
    first = put_job(c, kind=JobKind.RESPONSE, context={"input_items": [1]})
    second = put_job(c, kind=JobKind.RESPONSE, parent_id=first)
    third = put_job(c, kind=JobKind.RESPONSE, parent_id=second)

    recovery.erase_many(c, [first, second])

    assert jobs.find(c, first) is None
    kept = c.execute(select(_input.c.context, _input.c.request, _input.c.spec).where(_input.c.job_id == first)).one()
    assert tuple(kept) == ({"input_items": [1]}, {}, b"")
    assert _count(c)[:2] == [1, 3]

    recovery.erase_many(c, [third])

    assert _count(c)[:2] == [0, 0]


def test_an_input_that_two_jobs_continue_goes_with_the_last(c: Connection) -> None:
    parent = put_job(c, kind=JobKind.RESPONSE)
    left, right = (put_job(c, kind=JobKind.RESPONSE, parent_id=parent) for _ in range(2))

    recovery.erase_many(c, [parent, left])
    assert _count(c)[:2] == [1, 2]
    recovery.erase_many(c, [right])
    assert _count(c)[:2] == [0, 0]


def test_the_search_for_jobs_that_continue_one_uses_its_index(sqlite_database: Database) -> None:
    with sqlite_database.connect() as c:
        question = "EXPLAIN QUERY PLAN SELECT 1 FROM job_input WHERE parent_id = 'x'"
        assert "ix_job_input_parent_id" in " ".join(row.detail for row in c.exec_driver_sql(question))
