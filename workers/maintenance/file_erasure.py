"""Erasure of files: those that expired, that were deleted, and those whose upload broke off."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

import structlog
from sqlalchemy import Connection

from storage.database.connections import Database
from storage.database.group_commit import Writer
from storage.files import stored_files
from storage.files.content_store import ContentStore
from workers.maintenance.duties import PAGE

PATIENCE_S = 10.0

log = structlog.get_logger()
T = TypeVar("T")


class FileErasure:
    """A duty that erases the content of files bit by bit, and then their rows."""

    def __init__(self, database: Database, writer: Writer, store: ContentStore) -> None:
        self._database = database
        self._writer = writer
        self._store = store

    def erase_files(self) -> bool:
        """Mark a page of files that ended, and erase some content of one; whether more is due."""
        now = datetime.now(UTC)
        with self._database.connect() as connection:
            ended = stored_files.list_ended(connection, now, PAGE)
        if ended:
            self._write(lambda connection: stored_files.mark_ended(connection, ended, now))
            log.info("files_ended", num_files=len(ended))
        with self._database.connect() as connection:
            file_id = stored_files.find_deleted(connection)
        if file_id is None:
            return False
        if not self._store.erase_some(file_id):
            self._write(lambda connection: stored_files.erase_row(connection, file_id))
            log.info("file_erased", file_id=file_id)
        return True

    def _write(self, operation: Callable[[Connection], T]) -> T:
        return self._writer.submit(operation).result(PATIENCE_S)
