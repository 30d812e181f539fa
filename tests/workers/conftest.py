"""Fixtures of the workers' tests."""

from collections.abc import Iterator

import pytest

from tests.workers.harness import Bench, Ground, running


@pytest.fixture
def ground(database_url: str, redis_url: str) -> Iterator[Ground]:
    """A fresh database of each kind, and the empty Redis."""
    opened = Ground(database_url, redis_url)
    yield opened
    opened.close()


@pytest.fixture
def bench(ground: Ground) -> Iterator[Bench]:
    """A worker whose steps take no time."""
    with running(ground) as ready:
        yield ready
