"""What all duties about batches work with."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from redis import Redis
from sqlalchemy import Connection

from storage.database.connections import Database
from storage.database.group_commit import Writer
from storage.files.content_store import ContentStore
from storage.jobs import recovery
from storage.settings import RequestSettings
from workers.maintenance.job_recovery import Tickets

PATIENCE_S = 10.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchServices:
    """Connections, stores and settings."""

    settings: RequestSettings
    database: Database
    writer: Writer
    content: ContentStore
    redis: Redis
    tickets: Tickets

    def write(self, operation: Callable[[Connection], T]) -> T:
        """The operation's result after its commit."""
        return self.writer.submit(operation).result(PATIENCE_S)

    def now(self) -> datetime:
        """This moment by the database's clock, which also decides when jobs are overdue."""
        return self.read(recovery.database_now)

    def read(self, query: Callable[[Connection], T]) -> T:
        """The query's result."""
        with self.database.connect() as connection:
            return query(connection)
