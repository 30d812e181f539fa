"""Content in an object store: S3 and what speaks its protocol, or a local folder. Needs the `files` extra.

Each chunk is an object, `FILE_ID/NUMBER`: a chunk is durable when it is written, nothing is left half-done, and a range
is read from the chunks that hold it (`docs/decisions/0057-chunks-as-objects.md`).
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit

import obstore
import structlog
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import LocalStore, S3Store

from storage.database.connections import Database
from storage.errors import FileNotFound, SettingInvalid, StorageUnavailable
from storage.files import stored_files
from storage.files.content_store import ContentStore
from storage.files.stored_files import CHUNK_BYTES

_CONNECT_TIMEOUT = timedelta(seconds=3)
_REQUEST_TIMEOUT = timedelta(seconds=10)
# A request that fails is repeated; an upload waits for so long at most.
_MAX_RETRIES = 3
_RETRY_TIMEOUT = timedelta(seconds=20)
_OBJECTS_ERASED_AT_ONCE = 100

log = structlog.get_logger()


class ObjectContent:
    """Content in the store of a URL. Files of before, whose content is in the database, are read and erased there."""

    def __init__(self, files_url: str, database: Database, content_before: ContentStore) -> None:
        """SettingInvalid for a URL that cannot be a store's; nothing is asked of the store yet."""
        self._database = database
        self._before = content_before
        # The folder of a local store, whose files are flushed to disk here.
        self._folder: Path | None = None
        self._store: LocalStore | S3Store
        try:
            if files_url.startswith("file:"):
                self._folder = Path(unquote(urlsplit(files_url).path))
                self._store = LocalStore(self._folder, automatic_cleanup=True, mkdir=True)
            else:
                self._store = S3Store.from_url(
                    files_url,
                    client_options={
                        "timeout": _REQUEST_TIMEOUT,
                        "connect_timeout": _CONNECT_TIMEOUT,
                        "allow_http": True,
                    },
                    retry_config={"max_retries": _MAX_RETRIES, "retry_timeout": _RETRY_TIMEOUT},
                )
        except (BaseError, OSError, ValueError) as error:
            raise SettingInvalid(f"TOKENPOST_FILES_URL: {error}") from error

    def append(self, file_id: str, number: int, data: bytes) -> None:
        """As `ContentStore.append`; StorageUnavailable when the store does not take it."""
        with self._database.begin() as connection:
            stored_files.grow(connection, file_id, number, len(data), datetime.now(UTC))
        with _translated():
            obstore.put(self._store, _key(file_id, number), data, use_multipart=False)
            if self._folder is not None:
                _flush(self._folder / _key(file_id, number))

    def read(self, file_id: str, start: int, length: int) -> bytes:
        """As `ContentStore.read`; StorageUnavailable when the store does not answer."""
        assert 0 < length <= CHUNK_BYTES, "a read is bounded"
        pieces = []
        end = start + length
        while start < end:
            number, offset = divmod(start, CHUNK_BYTES)
            num_bytes = min(end - start, CHUNK_BYTES - offset)
            piece = self._find_piece(file_id, number, offset, num_bytes)
            if piece is None:
                return self._before.read(file_id, end - length, length)
            pieces.append(piece)
            start += num_bytes
        return b"".join(pieces)

    def erase_some(self, file_id: str) -> bool:
        """As `ContentStore.erase_some`; StorageUnavailable when the store does not answer."""
        with _translated():
            found = next(iter(obstore.list(self._store, file_id, chunk_size=_OBJECTS_ERASED_AT_ONCE)), [])
            if found:
                obstore.delete(self._store, [one["path"] for one in found])
        return bool(found) or self._before.erase_some(file_id)

    def _find_piece(self, file_id: str, number: int, offset: int, num_bytes: int) -> bytes | None:
        """Bytes of one chunk; None when the chunk is not in this store, FileNotFound when it is shorter."""
        with _translated():
            try:
                piece = obstore.get_range(self._store, _key(file_id, number), start=offset, length=num_bytes)
            except (NotFoundError, FileNotFoundError):
                return None
        if len(piece) != num_bytes:
            raise FileNotFound(f"No file with id '{file_id}'.")
        return piece.to_bytes()


def _key(file_id: str, number: int) -> str:
    return f"{file_id}/{number:06d}"


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (BaseError, OSError) as error:
        # Its text names hosts and folders, which are not for callers.
        log.warning("file_store_failed", error=str(error).strip().partition("\n")[0])
        raise StorageUnavailable("the store of files does not answer") from error


def _flush(path: Path) -> None:
    """Make a new file of a local store survive a power cut."""
    for one in (path, path.parent, path.parent.parent):
        descriptor = os.open(one, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
