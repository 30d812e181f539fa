"""A server with files and batches as `/v1` answers, each batch moving on with every look at it."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

COUNTS = {"total": 3, "completed": 2, "failed": 1}
NO_COUNTS = {"total": 0, "completed": 0, "failed": 0}
_CREATED = 1_796_083_200


class BatchServer:
    """Batches by id, each with the states that are still to come.

    contents: of files by id
    outages:  so many requests are answered with 503 before the next is answered
    seen:     headers, method, path and body of every request
    """

    def __init__(self) -> None:
        self.contents: dict[str, bytes] = {}
        self.batches: dict[str, list[dict[str, Any]]] = {}
        self.outages = 0
        self.seen: list[tuple[dict[str, str], str, str, bytes]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer._answer(self, b"")

            def do_POST(self) -> None:
                outer._answer(self, self.rfile.read(int(self.headers.get("content-length", 0))))

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def put_batch(self, batch_id: str, *states: dict[str, Any]) -> None:
        """A batch that shows one of the states after the other, the last for ever."""
        self.batches[batch_id] = [batch_object(batch_id, **state) for state in states]

    def _answer(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        path = handler.path.partition("?")[0]
        self.seen.append(
            ({name.lower(): value for name, value in handler.headers.items()}, handler.command, path, body)
        )
        status, answer = self._found(handler.command, path, body)
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        handler.send_response(status)
        handler.send_header("content-length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    def _found(self, method: str, path: str, body: bytes) -> tuple[int, object]:
        if self.outages:
            self.outages -= 1
            return 503, {"error": {"message": "the database does not answer"}}
        if (method, path) == ("POST", "/v1/files"):
            self.contents["file-in"] = body
            return 200, {"id": "file-in"}
        if (method, path) == ("POST", "/v1/batches"):
            wanted = json.loads(body)
            return 200, batch_object("batch_new", status="validating", endpoint=wanted["endpoint"])
        if path == "/v1/batches":
            return 200, {"data": [states[0] for states in self.batches.values()][::-1]}
        if found := re.fullmatch(r"/v1/files/([^/]+)/content", path):
            return 200, self.contents[found[1]]
        if found := re.fullmatch(r"/v1/batches/([^/]+)(/cancel)?", path):
            states = self.batches.get(found[1], [])
            if states:
                return 200, {**states[0], "status": "cancelling"} if found[2] else _next(states)
        return 404, {"error": {"message": f"There is no {path}."}}


def batch_object(batch_id: str, **changes: Any) -> dict[str, Any]:
    """A batch as `/v1/batches` shows it."""
    values = {
        "id": batch_id,
        "object": "batch",
        "endpoint": "/v1/responses",
        "status": "completed",
        "completion_window": "24h",
        "input_file_id": "file-in",
        "output_file_id": None,
        "error_file_id": None,
        "errors": None,
        "created_at": _CREATED,
        "completed_at": None,
        "request_counts": NO_COUNTS,
        "metadata": {},
    }
    return {**values, **changes}


def _next(states: list[dict[str, Any]]) -> dict[str, Any]:
    return states.pop(0) if len(states) > 1 else states[0]


@contextmanager
def running_batch_server() -> Iterator[BatchServer]:
    """A running server."""
    made = BatchServer()
    thread = Thread(target=made.server.serve_forever)
    thread.start()
    try:
        yield made
    finally:
        made.server.shutdown()
        thread.join()
        made.server.server_close()
