"""What is left of batches: files, events, retries, and jobs that are kept until then."""

from datetime import timedelta

import pytest
from sqlalchemy import select

from storage.batches import batch_rows
from storage.batches.batch_states import BatchStatus, LineStatus
from storage.batches.tables import BatchLine
from storage.database.table_definitions import table_of
from storage.files import stored_files
from storage.files.tables import FilePurpose
from storage.jobs import jobs, recovery
from storage.jobs.tables import Job, JobResult
from storage.webhooks.tables import WebhookEvent
from tests.storage.examples import put_endpoint
from tests.workers.batches.workshop import Workshop, line
from workers.batches import result_files
from workers.batches.result_files import ResultFiles, ResultsChanged


def _lines(number: int) -> bytes:
    return b"\n".join(line(f"id-{index}") for index in range(number))


def test_jobs_are_kept_until_the_files_are_written(workshop: Workshop) -> None:
    batch_id = workshop.create(_lines(3))
    workshop.run()
    workshop.complete(workshop.claim())
    workshop.now += timedelta(days=3)
    with workshop.database.connect() as c:
        assert recovery.list_erasable(c, workshop.now) == []
        ended = recovery.list_ended(c, workshop.now - timedelta(days=9), workshop.now, retentions_s=[600], limit=10)
        assert len(ended.job_ids) == 1
    workshop.now -= timedelta(days=3)

    workshop.finish_all()

    with workshop.database.connect() as c:
        assert len(recovery.list_erasable(c, workshop.now + timedelta(days=31))) == 3
    assert len(workshop.results(batch_id)[0]) == 3


def test_a_job_erased_while_the_files_are_written_is_reported_in_the_error_file(workshop: Workshop) -> None:
    batch_id = workshop.create(_lines(3))
    workshop.run()
    for _ in range(3):
        workshop.complete(workshop.claim())
    workshop.run(until=lambda: bool(workshop.runner._files))
    with workshop.database.begin() as c:
        jobs.erase(c, workshop.lines(batch_id)[1].job_id or "", "alice")

    workshop.run()

    output, errors = workshop.results(batch_id)
    assert (output.keys(), errors.keys()) == ({"id-0", "id-2"}, {"id-1"})


def test_a_result_that_is_gone_before_its_time_is_reported_and_holds_up_nothing(workshop: Workshop) -> None:
    batch_id = workshop.create(_lines(3))
    workshop.run()
    for _ in range(3):
        workshop.complete(workshop.claim())
    with workshop.database.begin() as c:
        c.execute(table_of(Job).delete().where(table_of(Job).c.id == workshop.lines(batch_id)[1].job_id))

    workshop.run()

    output, errors = workshop.results(batch_id)
    assert (output.keys(), errors.keys()) == ({"id-0", "id-2"}, {"id-1"})


def test_lines_whose_jobs_an_older_program_ended_are_found(workshop: Workshop) -> None:
    batch_id = workshop.create(_lines(2))
    workshop.run()
    for _ in range(2):
        workshop.complete(workshop.claim())
    lines = table_of(BatchLine)
    with workshop.database.begin() as c:
        c.execute(lines.update().values(status=LineStatus.IN_PROGRESS, status_code=None))
        c.execute(table_of(Job).delete().where(table_of(Job).c.id == workshop.lines(batch_id)[1].job_id))

    workshop.runner._reconcile_at = 0.0
    workshop.run()
    workshop.run()

    output, errors = workshop.results(batch_id)
    assert (output.keys(), errors.keys()) == ({"id-0"}, {"id-1"})


def test_another_process_writes_the_files_anew(workshop: Workshop) -> None:
    batch_id = workshop.create(_lines(40))
    workshop.run(until=lambda: len(workshop.tickets.sent) == 40)
    for _ in range(40):
        workshop.complete(workshop.claim())
    workshop.run(until=lambda: bool(workshop.runner._files))

    workshop.runner._files.clear()
    workshop.run()

    assert len(workshop.results(batch_id)[0]) == 40


def test_of_two_processes_that_write_the_files_one_is_seen(workshop: Workshop) -> None:
    batch_id = workshop.create(_lines(3))
    workshop.run()
    for _ in range(3):
        workshop.complete(workshop.claim())
    workshop.run(until=lambda: bool(workshop.runner._files))
    late = ResultFiles(workshop.services, workshop.batch(batch_id), lambda: workshop.now)
    late.step()
    workshop.run()

    with pytest.raises(ResultsChanged):
        late.step()

    assert workshop.results(batch_id)[0].keys() == {"id-0", "id-1", "id-2"}
    with workshop.database.connect() as c:
        seen = stored_files.list_files(c, "alice", workshop.now, purpose=FilePurpose.BATCH_OUTPUT)
    assert [file.id for file in seen] == [workshop.batch(batch_id).output_file_id]


def test_large_results_are_read_a_few_at_a_time(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result_files, "_PAGE_BYTES", 1)
    batch_id = workshop.create(_lines(3))
    workshop.run()
    for _ in range(3):
        workshop.complete(workshop.claim())
    workshop.run(until=lambda: bool(workshop.runner._files))

    assert workshop.runner._files[batch_id]._after == 1
    workshop.run()
    assert len(workshop.results(batch_id)[0]) == 3


def test_files_whose_writing_takes_hours_are_not_given_up(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result_files, "_PAGE_BYTES", 1)
    batch_id = workshop.create(_lines(4))
    workshop.run()
    for _ in range(4):
        workshop.complete(workshop.claim())
    workshop.run(until=lambda: bool(workshop.runner._files))

    for _ in range(3):
        workshop.now += timedelta(minutes=50)
        workshop.runner.run_once()
        with workshop.database.begin() as c:
            stored_files.mark_ended(c, stored_files.list_ended(c, workshop.now, 10), workshop.now)
    workshop.run()

    assert workshop.batch(batch_id).status is BatchStatus.COMPLETED
    assert len(workshop.results(batch_id)[0]) == 4


def test_a_result_that_cannot_be_read_yet_keeps_no_process_busy_and_doubles_nothing(workshop: Workshop) -> None:
    batch_id = workshop.create(_lines(3))
    workshop.run()
    for _ in range(3):
        workshop.complete(workshop.claim())
    second = table_of(JobResult).c.job_id == workshop.lines(batch_id)[1].job_id
    with workshop.database.begin() as c:
        c.execute(table_of(JobResult).update().where(second).values(result_version=99))

    workshop.run()

    assert workshop.batch(batch_id).status is BatchStatus.FINALIZING
    with workshop.database.begin() as c:
        c.execute(table_of(JobResult).update().where(second).values(result_version=1))
    workshop.runner._new_files_at.clear()
    workshop.run()
    assert workshop.results(batch_id)[0].keys() == {"id-0", "id-1", "id-2"}


def test_a_batch_has_one_event_and_its_lines_none(workshop: Workshop) -> None:
    with workshop.database.begin() as c:
        put_endpoint(c)
    batch_id = workshop.create(_lines(3))

    workshop.finish_all()

    table = table_of(WebhookEvent)
    with workshop.database.connect() as c:
        assert [tuple(row) for row in c.execute(select(table.c.type, table.c.job_id))] == [
            ("batch.completed", batch_id)
        ]


def test_lines_without_success_are_tried_again_in_a_new_batch(workshop: Workshop) -> None:
    first = workshop.create(_lines(4))
    workshop.run()
    workshop.complete(workshop.claim())
    for _ in range(3):
        workshop.fail(workshop.claim())
    workshop.run()
    source = workshop.batch(first)

    second = workshop.create(b"", retry_of=first, input_file_id=source.input_file_id, input_bytes=source.input_bytes)
    workshop.finish_all()

    assert workshop.results(second)[0].keys() == workshop.results(first)[1].keys()
    assert workshop.batch(second).status is BatchStatus.COMPLETED


def test_an_ended_batch_goes_with_its_lines_when_its_time_is_over(workshop: Workshop) -> None:
    batch_id = workshop.create(_lines(3))
    workshop.finish_all()

    workshop.now += timedelta(days=31)
    workshop.run()

    assert workshop.lines(batch_id) == []
    with workshop.database.connect() as c:
        assert batch_rows.find(c, batch_id) is None
