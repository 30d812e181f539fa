"""A local webhook receiver for developers: verifies signatures and hands events on."""

import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgspec

from storage.webhooks.errors import WebhookSignatureInvalid
from storage.webhooks.signing import verify

# Limits the body to 999,999 bytes; an event has 200.
_MAX_LENGTH_DIGITS = 6
_TIMEOUT_S = 15.0


class Received(msgspec.Struct, frozen=True, kw_only=True):
    """A request to the receiver.

    event:   the body, if its signature is valid
    refusal: why it was refused
    """

    event: dict[str, object] | None = None
    refusal: str | None = None


@contextmanager
def receiving(
    listener: socket.socket, secrets: Sequence[str], on_received: Callable[[Received], None]
) -> Iterator[None]:
    """Answer on a listening socket until the block ends: 204 if one of the secrets signed the request, else 401.

    on_received: called by one thread at a time
    """
    server = _Server(listener, secrets, on_received)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(
        self, listener: socket.socket, secrets: Sequence[str], on_received: Callable[[Received], None]
    ) -> None:
        super().__init__(listener.getsockname()[:2], _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self._secrets = secrets
        self._on_received = on_received
        self._lock_received = threading.Lock()

    def handle_error(self, request: object, client_address: object) -> None:
        """Report a broken connection as one line, where http.server would print a traceback."""
        self.take(Received(refusal=f"the connection broke: {sys.exception()!r}"))

    def take(self, received: Received) -> None:
        with self._lock_received:
            self._on_received(received)

    def judge(self, webhook_id: str, timestamp: str, signatures: str, body: bytes) -> Received:
        try:
            verify(self._secrets, webhook_id, timestamp, signatures, body, time.time())
            return Received(event=msgspec.json.decode(body, type=dict[str, object]))
        except WebhookSignatureInvalid as error:
            return Received(refusal=error.message)
        except msgspec.DecodeError as error:
            return Received(refusal=f"the body is no JSON object: {error}")


class _Handler(BaseHTTPRequestHandler):
    timeout = _TIMEOUT_S

    def do_POST(self) -> None:
        assert isinstance(self.server, _Server)
        length = self.headers.get("content-length", "")
        if not length.isdecimal() or len(length) > _MAX_LENGTH_DIGITS:
            self._answer(413)
            return
        received = self.server.judge(
            self.headers.get("webhook-id", ""),
            self.headers.get("webhook-timestamp", ""),
            self.headers.get("webhook-signature", ""),
            self.rfile.read(int(length)),
        )
        self._answer(204 if received.refusal is None else 401)
        self.server.take(received)

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that http.server gives it
        """Log nothing: `on_received` reports requests."""
