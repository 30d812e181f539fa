"""A stand-in for Hugging Face on this machine: one repository, as `huggingface_hub` asks for it."""

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class HuggingFaceServer(ThreadingHTTPServer):
    """Serves files of one repository.

    asked:       method, path and range of every request
    breaks:      how many next downloads of a file stop in the middle of what was asked for
    damages:     files that arrive with other bytes than Hugging Face names
    knows_ranges: whether a part of a file can be asked for
    sent_bytes:  of the contents of files
    error_codes: what `X-Error-Code` says of a repository that is not served
    """

    def __init__(self, repository: str, files: Mapping[str, bytes], error_code: str | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repository = repository
        self.files = files
        self.error_code = error_code
        self.asked: list[tuple[str, str, str | None]] = []
        self.breaks: Counter[str] = Counter()
        self.damages: set[str] = set()
        self.knows_ranges = True
        self.sent_bytes: Counter[str] = Counter()

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
                    {"type": "file", "path": name, "size": len(content), "oid": _etag(content)} | _lfs_of(name, content)
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
        etag = _lfs_of(name, content)["lfs"]["oid"] if _lfs_of(name, content) else _etag(content)
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        is_part = self.server.knows_ranges and self.headers.get("range") is not None
        first = int(self.headers["range"].removeprefix("bytes=").partition("-")[0]) if is_part else 0
        if is_part:
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        body = content[first:]
        if name in self.server.damages:
            body = bytes(len(body))
        is_broken = with_body and self.server.breaks[name] > 0
        if is_broken:
            self.server.breaks[name] -= 1
            self.close_connection = True
        sent = body[: len(body) // 2] if is_broken else body
        self.server.sent_bytes[name] += len(sent) if with_body else 0
        self._send(206 if is_part else 200, body, headers, sent)

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


def _lfs_of(name: str, content: bytes) -> dict[str, dict[str, object]]:
    """What the tree says of a file that is stored by its digest, as weights are."""
    if not name.endswith((".gguf", ".safetensors")):
        return {}
    return {"lfs": {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}}


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
