"""Fixtures of batches."""

from collections.abc import Iterator

import pytest
from redis import Redis

from storage.database.connections import Database
from storage.database.group_commit import Writer
from tests.workers.batches.workshop import Workshop


@pytest.fixture
def workshop(database: Database, writer: Writer, redis_client: Redis) -> Iterator[Workshop]:
    """A workshop whose model is served."""
    made = Workshop(database, writer, redis_client)
    made.serve()
    yield made
    made.runner.close()
