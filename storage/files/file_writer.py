"""Writing a file: its row first, then its content in chunks, so that memory holds one chunk at a time."""

from datetime import UTC, datetime

from storage.database.connections import Database
from storage.files import stored_files
from storage.files.content_store import ContentStore
from storage.files.stored_files import CHUNK_BYTES, NewFile

# Chunks between two checks of what the owner has stored; parallel uploads exceed the limit by this many each.
_CHUNKS_PER_CHECK = 16


class FileWriter:
    """Writes one file. It blocks, so it is for threads, one at a time.

    After `close`, `stored_files.finish` in a transaction of the caller makes the file visible. A file that is not
    finished is erased by maintenance, at once after `give_up`.
    """

    def __init__(
        self, database: Database, store: ContentStore, new: NewFile, *, max_stored_bytes: int | None = None
    ) -> None:
        """Commit the file's row; FileStorageFull when its owner's files hold more already.

        max_stored_bytes: what the owner's files may hold together, checked while they grow; None is no limit
        """
        self.file_id = new.file_id
        self.size_bytes = 0
        self._owner = new.owner
        self._database = database
        self._store = store
        self._max_stored_bytes = max_stored_bytes
        self._number = 0
        self._buffer = bytearray()
        self._refuse_beyond_limit()
        with database.begin() as connection:
            stored_files.create(connection, new)

    def write(self, data: bytes | memoryview) -> None:
        """Append to the content; raises as `stored_files.grow`, and FileStorageFull."""
        self._buffer += data
        self.size_bytes += len(data)
        while len(self._buffer) >= CHUNK_BYTES:
            chunk = bytes(memoryview(self._buffer)[:CHUNK_BYTES])
            del self._buffer[:CHUNK_BYTES]
            self._append(chunk)

    def close(self) -> None:
        """Write what is left; raises as `write`."""
        if self._buffer:
            chunk = bytes(self._buffer)
            self._buffer.clear()
            self._append(chunk)

    def give_up(self) -> None:
        """Leave what was written to be erased."""
        self._buffer.clear()
        with self._database.begin() as connection:
            stored_files.give_up(connection, self.file_id, datetime.now(UTC))

    def _append(self, chunk: bytes) -> None:
        self._store.append(self.file_id, self._number, chunk)
        self._number += 1
        if self._number % _CHUNKS_PER_CHECK == 0:
            self._refuse_beyond_limit()

    def _refuse_beyond_limit(self) -> None:
        if self._max_stored_bytes is not None:
            with self._database.connect() as connection:
                stored_files.refuse_beyond(connection, self._owner, self._max_stored_bytes)
