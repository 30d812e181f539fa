"""Uploads: bodies are received on the event loop, parsed and written in threads, one piece after another."""

import asyncio
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial

import structlog
from starlette.requests import ClientDisconnect, Request

from api.files.multipart_reader import MultipartReader, boundary_of
from api.files.transfer_slots import TransferSlots
from api.files.upload_form import FILE, FORM_BYTES, Description, UploadForm
from api.headers import header_of
from api.http.request_bodies import coding_of_body, declared_size
from storage.database.connections import Database
from storage.errors import FileTooLarge, StorageUnavailable, UnsupportedMediaType
from storage.files import stored_files
from storage.files.content_store import ContentStore
from storage.files.file_writer import FileWriter
from storage.files.stored_files import NewFile, StoredFile
from storage.ids import new_id

# An upload takes up to three chunks of memory while one is written.
_MAX_UPLOADS = 32
_MAX_UPLOADS_PER_OWNER = 8
_NUM_THREADS = 4

log = structlog.get_logger()


class Uploads:
    """Receives files."""

    def __init__(
        self, database: Database, store: ContentStore, *, max_file_bytes: int, max_stored_bytes: int | None
    ) -> None:
        """max_stored_bytes: what the files of one owner may hold together; None is no limit"""
        self._database = database
        self._store = store
        self._max_file_bytes = max_file_bytes
        self._max_stored_bytes = max_stored_bytes
        self._slots = TransferSlots(max_transfers=_MAX_UPLOADS, max_per_owner=_MAX_UPLOADS_PER_OWNER)
        self._threads = ThreadPoolExecutor(_NUM_THREADS, thread_name_prefix="upload")

    async def receive(self, request: Request, owner: str) -> StoredFile:
        """The file that the request's form holds, stored.

        Raises InvalidRequest, UnsupportedParameter, UnsupportedMediaType, FileTooLarge, FileStorageFull,
        TooManyTransfers, StorageUnavailable, UploadInterrupted and ClientDisconnect. Nothing of a file that was not
        stored is kept.
        """
        boundary = boundary_of(header_of(request.scope, b"content-type"))
        if coding_of_body(request) != b"identity":
            raise UnsupportedMediaType("An upload must not be compressed as a whole.")
        max_body_bytes = self._max_file_bytes + FORM_BYTES
        if declared_size(request) > max_body_bytes:
            raise _too_large(self._max_file_bytes)
        with self._slots.taken(owner):
            form = UploadForm(
                partial(self._begin_file, owner),
                created_at=datetime.now(UTC),
                max_file_bytes=self._max_file_bytes,
                declared_bytes=declared_size(request),
            )
            upload = _Upload(self._database, boundary, form)
            loop = asyncio.get_running_loop()
            try:
                async for piece in _pieces(request):
                    max_body_bytes -= len(piece)
                    if max_body_bytes < 0:
                        raise _too_large(self._max_file_bytes)
                    await loop.run_in_executor(self._threads, upload.feed, piece)
                return await loop.run_in_executor(self._threads, upload.finish)
            except BaseException:
                # Not awaited: whoever cancels this task need not wait for the database.
                self._threads.submit(upload.give_up)
                raise

    def stop(self) -> None:
        """Wait for what is being written."""
        self._threads.shutdown()

    def _begin_file(self, owner: str, filename: str, described: Description) -> FileWriter:
        new = NewFile(
            file_id=new_id("file-"),
            owner=owner,
            purpose=described.purpose,
            filename=filename,
            created_at=described.created_at,
            expires_at=described.expires_at,
        )
        return FileWriter(self._database, self._store, new, max_stored_bytes=self._max_stored_bytes)


class _Upload:
    """One upload. Its methods block, so they are for threads; no two of them run at once."""

    def __init__(self, database: Database, boundary: bytes, form: UploadForm) -> None:
        self._database = database
        self._form = form
        self._reader = MultipartReader(boundary, form)
        self._lock = threading.Lock()

    def feed(self, piece: bytes) -> None:
        """Parse and write the next bytes of the form."""
        with self._lock:
            self._reader.feed(piece)

    def finish(self) -> StoredFile:
        """The file, once the whole form came."""
        with self._lock:
            self._reader.finish()
            writer, described = self._form.finish()
            writer.close()
            with self._database.begin() as connection:
                stored_files.describe(connection, writer.file_id, described.purpose, described.expires_at)
                return stored_files.finish(connection, writer.file_id, datetime.now(UTC))

    def give_up(self) -> None:
        """Leave what was written to be erased."""
        with self._lock:
            if self._form.writer is None:
                return
            try:
                self._form.writer.give_up()
            except StorageUnavailable as error:
                # Maintenance erases it all the same, later.
                log.warning("upload_not_given_up", file_id=self._form.writer.file_id, error=error.message)


async def _pieces(request: Request) -> AsyncIterator[bytes]:
    """The body as it comes."""
    has_more = True
    while has_more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        has_more = message.get("more_body", False)
        if piece := message.get("body", b""):
            yield piece


def _too_large(limit: int) -> FileTooLarge:
    return FileTooLarge(f"A file has at most {limit} bytes.", param=FILE)
