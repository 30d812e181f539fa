"""Downloads: the content of a file, read chunk by chunk in threads as fast as its client takes it."""

import asyncio
import re
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from urllib.parse import quote

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.files.transfer_slots import TransferSlots
from api.streaming.disconnect import watched
from storage.files.content_store import ContentStore
from storage.files.stored_files import CHUNK_BYTES, StoredFile

# A download takes up to three chunks of memory: one that is read, one that its client has not taken yet.
_MAX_DOWNLOADS = 32
_MAX_DOWNLOADS_PER_OWNER = 8
_NUM_THREADS = 4
_NOT_SIMPLE = re.compile(r"[^A-Za-z0-9._ -]")


class Downloads:
    """Sends contents of files."""

    def __init__(self, store: ContentStore) -> None:
        self._store = store
        self._slots = TransferSlots(max_transfers=_MAX_DOWNLOADS, max_per_owner=_MAX_DOWNLOADS_PER_OWNER)
        self._threads = ThreadPoolExecutor(_NUM_THREADS, thread_name_prefix="download")

    async def send(self, file: StoredFile, receive: Receive, send: Send) -> None:
        """Send the body of a response, its start included; TooManyTransfers before that.

        It stops when the client has gone. A file whose content is erased meanwhile ends in FileNotFound.
        """
        with self._slots.taken(file.owner):
            gone = asyncio.Event()
            async with watched(receive, gone.set):
                await send({"type": "http.response.start", "status": 200, "headers": headers_of_content(file)})
                start = 0
                while start < file.size_bytes and not gone.is_set():
                    length = min(CHUNK_BYTES, file.size_bytes - start)
                    body = await self._read(file.id, start, length)
                    start += length
                    await send({"type": "http.response.body", "body": body, "more_body": start < file.size_bytes})
                if file.size_bytes == 0:
                    await send({"type": "http.response.body", "body": b""})

    def stop(self) -> None:
        """Read nothing more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _read(self, file_id: str, start: int, length: int) -> bytes:
        read = partial(self._store.read, file_id, start, length)
        return await asyncio.get_running_loop().run_in_executor(self._threads, read)


class ContentReply(Response):
    """The content of a file as a download."""

    def __init__(self, downloads: Downloads, file: StoredFile) -> None:
        self.background = None
        self._downloads = downloads
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._downloads.send(self._file, receive, send)


def headers_of_content(file: StoredFile) -> list[tuple[bytes, bytes]]:
    """The headers of a download. No browser shows or runs it: who uploaded it decided what it holds."""
    # RFC 6266, appendix D: a name in ASCII for old clients, and the whole one.
    simple = _NOT_SIMPLE.sub("_", file.filename)
    disposition = f"attachment; filename=\"{simple}\"; filename*=UTF-8''{quote(file.filename, safe='')}"
    return [
        (b"content-type", b"application/octet-stream"),
        (b"content-length", b"%d" % file.size_bytes),
        (b"content-disposition", disposition.encode("ascii")),
        (b"x-content-type-options", b"nosniff"),
        (b"content-security-policy", b"default-src 'none'; sandbox"),
    ]
