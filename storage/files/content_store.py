"""Content stores: where the bytes of files lie. Everything here blocks, so it is for threads."""

from datetime import UTC, datetime
from typing import Protocol

from storage.database.connections import Database
from storage.files import stored_files

# An erasure of so many chunks holds up other writers for some tens of milliseconds.
_CHUNKS_ERASED_AT_ONCE = 16


class ContentWriter(Protocol):
    """The content of one file while it is written, chunk by chunk, in order."""

    def append(self, number: int, data: bytes) -> None:
        """Write the next chunk; raises as `stored_files.grow`.

        data: CHUNK_BYTES, or less for the last chunk
        """

    def close(self) -> None:
        """Make all of it durable; then the file may be finished."""

    def abort(self) -> None:
        """Free what the writer itself holds; the content that was written is erased as that of any deleted file."""


class ContentStore(Protocol):
    """Where the content of files lies."""

    def open_writer(self, file_id: str) -> ContentWriter:
        """Begin the content of a file whose row exists."""

    def read(self, file_id: str, start: int, length: int) -> bytes:
        """Bytes `start` to `start + length`; FileNotFound when any of them is not there.

        length: at most CHUNK_BYTES
        """

    def erase_some(self, file_id: str) -> bool:
        """Erase content of a deleted file, as much as is done quickly; whether more may be left."""


class DatabaseContent:
    """Content in the database, a row for each chunk: all that machines share stays in one place."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def open_writer(self, file_id: str) -> ContentWriter:
        """As `ContentStore.open_writer`."""
        return _ChunkWriter(self._database, file_id)

    def read(self, file_id: str, start: int, length: int) -> bytes:
        """As `ContentStore.read`."""
        with self._database.connect() as connection:
            return stored_files.read_range(connection, file_id, start, length)

    def erase_some(self, file_id: str) -> bool:
        """As `ContentStore.erase_some`."""
        with self._database.begin() as connection:
            return stored_files.erase_chunks(connection, file_id, _CHUNKS_ERASED_AT_ONCE)


class _ChunkWriter:
    """Writes each chunk in a transaction of its own."""

    def __init__(self, database: Database, file_id: str) -> None:
        self._database = database
        self._file_id = file_id

    def append(self, number: int, data: bytes) -> None:
        with self._database.begin() as connection:
            stored_files.append_chunk(connection, self._file_id, number, data, datetime.now(UTC))

    def close(self) -> None:
        """Nothing is left to do: each chunk was committed."""

    def abort(self) -> None:
        """Nothing is held."""
