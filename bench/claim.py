"""What the claim of a job costs, in bytes written to the write-ahead log and in time, beside the size of its request.

`python -m bench.claim [--claims 300] [--postgres URL]`: jobs whose requests are small, 64 kB and 1 MB are claimed one
by one, each claim in a transaction of its own, as a worker's writer does it.
"""

import argparse
import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table
from sqlalchemy import insert, text

from storage.contract import JobKind, JobSpec, SamplingParams
from storage.database.connections import Database
from storage.database.migration import migrate
from storage.database.table_definitions import table_of
from storage.ids import new_job_id
from storage.jobs import jobs
from storage.jobs.records import NewJob

# Characters of an English token, about; a request of so many bytes has so many fewer tokens.
_CHARACTERS_PER_TOKEN = 4
SIZES = {"1 kB": 1000, "64 kB": 64_000, "1 MB": 1_000_000}


def new_job(num_bytes: int) -> NewJob:
    """A queued job with a request of about so many bytes."""
    prompt = tuple(1000 + index % 30_000 for index in range(num_bytes // _CHARACTERS_PER_TOKEN))
    return NewJob(
        job_id=new_job_id(JobKind.RESPONSE),
        owner="bench",
        kind=JobKind.RESPONSE,
        model="bench",
        background=True,
        store=True,
        request={"model": "bench", "input": "word " * (num_bytes // 5)},
        context={},
        metadata={},
        spec=JobSpec(prompts=(prompt,), sampling=SamplingParams(max_tokens=64)),
        created_at=datetime.now(UTC),
    )


def put(database: Database, new: NewJob) -> str:
    """The id of the job, now queued."""
    with database.begin() as connection:
        for table, values in jobs.rows_of(new, 600):
            connection.execute(insert(table_of(table)).values(**values))
    return new.job_id


def wal_bytes_of(database: Database, folder: Path) -> Callable[[], int]:
    """A function of the bytes that were ever written to the write-ahead log."""
    if database.is_sqlite:
        return lambda: (folder / "claim.db-wal").stat().st_size

    def ask() -> int:
        with database.connect() as connection:
            return int(connection.execute(text("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn")).scalar_one())

    return ask


def claim_all(database: Database, job_ids: list[str], wal_bytes: Callable[[], int]) -> tuple[float, float]:
    """Median WAL bytes and median milliseconds of one claim; others, such as autovacuum, write to the same log."""
    written, took_ms = [], []
    for job_id in job_ids:
        before = wal_bytes()
        started = time.perf_counter()
        with database.begin() as connection:
            claimed = jobs.claim(connection, job_id, "worker", datetime.now(UTC))
        took_ms.append(1e3 * (time.perf_counter() - started))
        written.append(wal_bytes() - before)
        assert claimed is not None
    return statistics.median(written), statistics.median(took_ms)


@contextlib.contextmanager
def _from_an_empty_log(database: Database) -> Iterator[None]:
    """A block in which the write-ahead log only grows."""
    if not database.is_sqlite:
        with database.connect() as connection:
            # What a checkpoint makes the next change of a page cost is no cost of the claim.
            connection.execute(text("CHECKPOINT"))
        yield
        return
    with database.connect() as connection:
        connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))
        connection.execute(text("BEGIN"))
        # The snapshot of a reader keeps SQLite from beginning the log anew.
        connection.execute(text("SELECT count(*) FROM job"))
        yield


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--claims", type=int, default=300, help="of each size")
    parser.add_argument("--postgres", metavar="URL", help="an empty database instead of SQLite")
    options = parser.parse_args()
    table = Table(title=f"one claim on {'PostgreSQL' if options.postgres else 'SQLite'}, {options.claims} of each size")
    for heading in ("request", "WAL bytes", "p50 ms"):
        table.add_column(heading, justify="right")
    with tempfile.TemporaryDirectory(prefix="tokenpost-bench-") as name:
        url = options.postgres or f"sqlite:///{Path(name) / 'claim.db'}"
        migrate(url)
        database = Database(url)
        wal_bytes = wal_bytes_of(database, Path(name))
        ids_by_size = {size: [put(database, new_job(SIZES[size])) for _ in range(options.claims)] for size in SIZES}
        claim_all(database, [put(database, new_job(1000)) for _ in range(50)], wal_bytes)
        for size, job_ids in ids_by_size.items():
            with _from_an_empty_log(database):
                written, took_ms = claim_all(database, job_ids, wal_bytes)
            table.add_row(size, f"{written:,.0f}", f"{took_ms:.2f}")
        database.dispose()
    Console().print(table)


if __name__ == "__main__":
    main()
