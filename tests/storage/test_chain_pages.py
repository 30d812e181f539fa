"""Chains of jobs, read backwards in pages."""

import itertools
from collections.abc import Iterator, Sequence

import pytest
from sqlalchemy import Connection, event

from storage.database.connections import Database
from storage.jobs import records
from tests.storage.examples import put_job


@pytest.fixture
def c(database: Database) -> Iterator[Connection]:
    with database.begin() as connection:
        yield connection


def _put_chain(c: Connection, sizes: Sequence[int | None]) -> list[str]:
    """Jobs of so many bytes, each of which continues the one before it; None is one whose size was not noted."""
    job_ids: list[str] = []
    chain_bytes = 0
    for number, size in enumerate(sizes):
        chain_bytes += size or 0
        job_ids.append(
            put_job(
                c,
                context={"number": number},
                parent_id=job_ids[-1] if job_ids else None,
                chain_bytes=None if size is None else chain_bytes,
            )
        )
    return job_ids


@pytest.mark.parametrize(
    ("sizes", "page_sizes"),
    [
        ([1], [1]),
        ([1] * 130, [64, 64, 2]),
        ([100_000] * 5, [2, 2, 1]),
        ([1, 1, 900_000, 1, 1], [2, 1, 2]),
        ([900_000] * 3, [1, 1, 1]),
        ([None, 300, 1], [3]),
    ],
)
def test_a_chain_is_read_backwards_in_pages(c: Connection, sizes: Sequence[int | None], page_sizes: list[int]) -> None:
    job_ids = _put_chain(c, sizes)
    queries: list[str] = []
    event.listen(c, "after_cursor_execute", lambda *given: queries.append(given[2]))
    num_consumed = list(itertools.accumulate(page_sizes))

    chain = records.iterate_chain(c, job_ids[-1])
    pages_after_each = [(link.job_id, len(queries)) for link in chain]

    assert [job_id for job_id, _ in pages_after_each] == job_ids[::-1]
    assert [num_pages for _, num_pages in pages_after_each] == [
        next(page for page, end in enumerate(num_consumed, 1) if number < end) for number in range(len(job_ids))
    ]


def test_an_absent_job_has_no_chain(c: Connection) -> None:
    assert list(records.iterate_chain(c, "resp_unknown")) == []
