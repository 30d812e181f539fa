"""A receiver of webhooks that can misbehave, and records what it received."""

import json
import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from storage.webhooks import signing
from storage.webhooks.errors import WebhookSignatureInvalid
from tests.drill.judge import Hook

ELSEWHERE = "/elsewhere"
_SLOW_S = 3.0
_HUGE_BYTES = 8 << 20
_SILENT_S = 60.0


class Manner(StrEnum):
    """What the receiver does to the first delivery of each event; it takes the second."""

    GOOD = "good"
    SLOW = "slow"  # it answers well, after three seconds
    SILENT = "silent"  # it never answers
    FAILING = "failing"
    HUGE = "huge"  # it answers well, and does not stop
    REDIRECTING = "redirecting"
    BREAKING = "breaking"  # it closes without an answer


@dataclass(slots=True)
class _Visit:
    t: float
    path: str
    hook: Hook


class Receiver:
    """Listens on a port of this machine, in threads of its own."""

    def __init__(self, *, clock_shift_s: float = 0.0) -> None:
        """clock_shift_s: of its clock, which must agree with its sender's to five minutes"""
        self._clock_shift_s = clock_shift_s
        self.secret = signing.new_secret()
        self.manner = Manner.GOOD
        self._visits: list[_Visit] = []
        self._num_by_event: dict[str, int] = defaultdict(int)
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                receiver.receive(self)

            def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - its parent's name
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                pass  # a sender that goes away is no error here

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="receiver", daemon=True)

    @property
    def target(self) -> dict[str, object]:
        """The `webhook` of a job whose events go here."""
        return {"url": f"http://127.0.0.1:{self._server.server_port}/hook", "secret": self.secret}

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def stop(self) -> None:
        """Listen no more."""
        self._stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5.0)

    def hooks(self) -> dict[str, list[Hook]]:
        """The accepted events, by job."""
        with self._lock:
            found: dict[str, list[Hook]] = {}
            for visit in self._visits:
                found.setdefault(visit.hook.job_id, []).append(visit.hook)
            return found

    def receive(self, request: BaseHTTPRequestHandler) -> None:
        """Answer one delivery."""
        body = request.rfile.read(int(request.headers.get("content-length", 0)))
        event = json.loads(body)
        with self._lock:
            self._num_by_event[event["id"]] += 1
            manner = self.manner if self._num_by_event[event["id"]] == 1 else Manner.GOOD
            is_taken = manner in (Manner.GOOD, Manner.SLOW, Manner.HUGE)
            self._visits.append(_Visit(time.monotonic(), request.path, self._hook(request, event, body, is_taken)))
        self._answer(request, manner)

    def _hook(self, request: BaseHTTPRequestHandler, event: dict[str, object], body: bytes, is_taken: bool) -> Hook:
        reported = [request.headers.get(f"webhook-{name}", "") for name in ("id", "timestamp", "signature")]
        try:
            signing.verify([self.secret], *reported, body, time.time() + self._clock_shift_s)
            is_signed = reported[0] == event["id"]
        except WebhookSignatureInvalid:
            is_signed = False
        data = event["data"]
        assert isinstance(data, dict)
        return Hook(
            event_id=reported[0],
            type=str(event["type"]),
            job_id=str(data["id"]),
            is_signed=is_signed,
            is_taken=is_taken,
            is_followed=request.path == ELSEWHERE,
        )

    def _answer(self, request: BaseHTTPRequestHandler, manner: Manner) -> None:
        status, headers, size = 200, {}, 2
        match manner:
            case Manner.SLOW:
                self._stopping.wait(_SLOW_S)
            case Manner.SILENT:
                self._stopping.wait(_SILENT_S)
                return
            case Manner.BREAKING:
                request.close_connection = True
                return
            case Manner.FAILING:
                status = 500
            case Manner.HUGE:
                size = _HUGE_BYTES
            case Manner.REDIRECTING:
                status, headers = 307, {"location": ELSEWHERE}
            case Manner.GOOD:
                pass
        request.send_response(status)
        for name, value in {**headers, "content-length": str(size)}.items():
            request.send_header(name, value)
        request.end_headers()
        for _ in range(0, size, 1 << 16):
            request.wfile.write(b"x" * min(size, 1 << 16))
