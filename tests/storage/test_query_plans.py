"""Queries about batches and files that run while nobody else writes, or every few seconds: an index answers each."""

from collections.abc import Callable

from sqlalchemy import Connection, event

from storage.batches import batch_rows, line_outcomes
from storage.batches.batch_states import BatchStatus
from storage.batches.tables import Batch
from storage.database.connections import Database
from storage.files import stored_files
from tests.storage.examples import NOW


def _plan(c: Connection, operation: Callable[[], object]) -> list[str]:
    """The plan of everything that the operation executes."""
    asked: list[tuple[str, tuple[object, ...]]] = []

    def note(*given: tuple[object, ...]) -> None:
        asked.append((str(given[2]), given[3]))

    event.listen(c, "before_cursor_execute", note)
    operation()
    event.remove(c, "before_cursor_execute", note)
    return [
        row.detail
        for statement, values in asked
        for row in c.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
    ]


def test_erased_jobs_are_noted_in_their_lines_without_reading_the_others(sqlite_database: Database) -> None:
    with sqlite_database.begin() as c:
        batch_rows.create(
            c,
            Batch(
                id="batch_1",
                owner="alice",
                endpoint="/v1/completions",
                status=BatchStatus.IN_PROGRESS,
                completion_window="24h",
                priority=10,
                input_file_id="file-1",
                input_bytes=1,
                models=[],
                cursor_offset=0,
                created_at=NOW,
                expires_at=NOW,
            ),
        )
        jobs = {f"job_{number}": "batch_1" for number in range(500)}
        plan = _plan(c, lambda: line_outcomes.note_erased(c, jobs))

    assert any("ix_batch_line_job_id (job_id=?)" in step for step in plan), plan
    assert not any("SCAN" in step or ("batch_line" in step and "batch_id=?" in step) for step in plan), plan


def test_ended_files_are_found_without_reading_the_others(sqlite_database: Database) -> None:
    with sqlite_database.connect() as c:
        plan = _plan(c, lambda: stored_files.list_ended(c, NOW, 10))

    assert any("ix_file_expires_at" in step for step in plan), plan
    assert any("ix_file_unfinished" in step for step in plan), plan
    assert not any("SCAN" in step for step in plan), plan
