"""The webhook sender's thread, which runs an event loop of its own."""

import asyncio
import threading

import httpcore2
import structlog

from storage.database.connections import Database
from storage.database.group_commit import Writer
from storage.settings import StorageSettings
from workers.webhooks.post import Poster
from workers.webhooks.sender import Sender

GRACE_S = 3.0

log = structlog.get_logger()


class SenderThread:
    """Sends webhooks until it is stopped."""

    def __init__(self, storage: StorageSettings, database: Database, writer: Writer) -> None:
        self._storage = storage
        self._database = database
        self._writer = writer
        self._stopping = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="webhooks", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._loop = asyncio.new_event_loop()
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Start no more attempts; those in flight have a short grace, and the rest is released for another sender."""
        if self._loop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(timeout_s)

    def _run(self) -> None:
        assert self._loop is not None
        try:
            self._loop.run_until_complete(self._send())
        except Exception:  # exception boundary of the thread
            log.exception("webhooks_ended")
        finally:
            self._loop.close()

    async def _send(self) -> None:
        poster = Poster(httpcore2.default_ssl_context())
        await Sender(self._storage, self._database, self._writer, poster.post).run(self._stopping, GRACE_S)
