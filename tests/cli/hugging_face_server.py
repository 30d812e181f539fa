"""A stand-in for Hugging Face on this machine: one repository, as `huggingface_hub` asks for it."""

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class HuggingFaceServer(ThreadingHTTPServer):
    """Serves files of one repository.

    asked:       method, path and range of every request
    breaks:      files whose next download stops in the middle
    error_codes: what `X-Error-Code` says of a repository that is not served
    """

    def __init__(self, repository: str, files: Mapping[str, bytes], error_code: str | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repository = repository
        self.files = files
        self.error_code = error_code
        self.asked: list[tuple[str, str, str | None]] = []
        self.breaks: set[str] = set()

    @property
    def url(self) -> str:
        """What HF_ENDPOINT is set to."""
        return f"http://127.0.0.1:{self.server_port}"

    def downloads_of(self, file: str) -> list[str | None]:
        """The ranges in which a file's content was asked for."""
        return [range_ for method, path, range_ in self.asked if method == "GET" and path.endswith(f"/{file}")]


class _Handler(BaseHTTPRequestHandler):
    server: HuggingFaceServer

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _answer(self, *, with_body: bool) -> None:
        path = urlsplit(self.path).path
        self.server.asked.append((self.command, path, self.headers.get("range")))
        repository = self.server.repository
        if self.server.error_code is not None or f"/{repository}/" not in f"{path}/":
            code = self.server.error_code or "RepoNotFound"
            self._send(403 if code == "GatedRepo" else 404, b"{}", {"X-Error-Code": code})
        elif path == f"/api/models/{repository}/revision/main":
            self._send_json({"id": repository, "sha": COMMIT, "siblings": []})
        elif path.startswith(f"/api/models/{repository}/tree/"):
            self._send_json(
                [
                    {"type": "file", "path": name, "size": len(content), "oid": _etag(content)}
                    for name, content in self.server.files.items()
                ]
            )
        else:
            self._send_file(path.partition("/resolve/")[2].partition("/")[2], with_body=with_body)

    def _send_file(self, name: str, *, with_body: bool) -> None:
        content = self.server.files.get(name)
        if content is None:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        headers = {"ETag": f'"{_etag(content)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        first = int((self.headers.get("range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
        if first:
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        body = content[first:]
        is_broken = with_body and name in self.server.breaks
        if is_broken:
            self.server.breaks.remove(name)
            self.close_connection = True
        self._send(206 if first else 200, body, headers, body[: len(body) // 2] if is_broken else body)

    def _send_json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: Mapping[str, str], sent: bytes | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body if sent is None else sent)


def _etag(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()


@contextmanager
def serving_hugging_face(
    repository: str, files: Mapping[str, bytes], error_code: str | None = None
) -> Iterator[HuggingFaceServer]:
    """A running server."""
    server = HuggingFaceServer(repository, files, error_code)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
