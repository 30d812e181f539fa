"""Erasure of files: those that expired, that were deleted, and those whose upload broke off.

It has a thread of its own, since an object store may answer slowly. Several processes may do it at once.
"""

from datetime import UTC, datetime

import structlog

from storage.database.connections import Database
from storage.errors import StorageUnavailable
from storage.files import stored_files
from storage.files.content_store import ContentStore
from workers.maintenance.duties import PAGE

log = structlog.get_logger()


class FileErasure:
    """Erases the content of files bit by bit, and then their rows."""

    def __init__(self, database: Database, store: ContentStore) -> None:
        self._database = database
        self._store = store

    def erase_files(self) -> bool:
        """Mark a page of files that ended, and erase some content of one; whether more is due."""
        try:
            return self._erase(datetime.now(UTC))
        except StorageUnavailable as error:
            log.warning("file_erasure_failed", error=error.message)
            return False

    def _erase(self, now: datetime) -> bool:
        with self._database.connect() as connection:
            ended = stored_files.list_ended(connection, now, PAGE)
        if ended:
            with self._database.begin() as connection:
                stored_files.mark_ended(connection, ended, now)
            log.info("files_ended", num_files=len(ended))
        with self._database.connect() as connection:
            file_id = stored_files.find_deleted(connection)
        if file_id is None:
            return False
        if not self._store.erase_some(file_id):
            with self._database.begin() as connection:
                stored_files.erase_row(connection, file_id)
            log.info("file_erased", file_id=file_id)
        return True


def log_erasure_broken(error: Exception) -> bool:
    """Log what was raised unexpectedly; True, since the next time may succeed."""
    log.error("file_erasure_broken", exc_info=error)
    return True
