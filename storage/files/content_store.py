"""Content stores: where the bytes of files lie. Everything here blocks, so it is for threads."""

import importlib
import importlib.util
from datetime import UTC, datetime
from typing import Protocol, cast

from storage.database.connections import Database
from storage.errors import SettingInvalid
from storage.files import stored_files

# SQLite follows every page of a chunk to free it: 7 ms for each chunk, in which nobody else writes.
_CHUNKS_ERASED_AT_ONCE = 2


class ContentStore(Protocol):
    """Where the content of files lies."""

    def append(self, file_id: str, number: int, data: bytes) -> None:
        """Write the next chunk of an unfinished file, durably; raises as `stored_files.grow`.

        data: CHUNK_BYTES, or less for the last chunk
        """

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

    def append(self, file_id: str, number: int, data: bytes) -> None:
        """As `ContentStore.append`, in a transaction of its own beside those of the group-commit writer."""
        with self._database.begin() as connection:
            stored_files.append_chunk(connection, file_id, number, data, datetime.now(UTC))

    def read(self, file_id: str, start: int, length: int) -> bytes:
        """As `ContentStore.read`."""
        with self._database.connect() as connection:
            return stored_files.read_range(connection, file_id, start, length)

    def erase_some(self, file_id: str) -> bool:
        """As `ContentStore.erase_some`."""
        with self._database.begin() as connection:
            return stored_files.erase_chunks(connection, file_id, _CHUNKS_ERASED_AT_ONCE)


def open_content(files_url: str | None, database: Database) -> ContentStore:
    """The store of that URL, see `StorageSettings.files_url`; None is the database. SettingInvalid without obstore."""
    content = DatabaseContent(database)
    if files_url is None:
        return content
    if importlib.util.find_spec("obstore") is None:
        raise SettingInvalid("TOKENPOST_FILES_URL names an object store, which needs: pip install 'tokenpost[files]'")
    # Imported here because it needs obstore, an optional dependency.
    module = importlib.import_module("storage.files.object_content")
    return cast(ContentStore, module.ObjectContent(files_url, database, content))
