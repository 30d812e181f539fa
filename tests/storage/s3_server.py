"""The part of the S3 protocol that an object store of chunks needs, in memory."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, unquote, urlsplit


class S3Server:
    """Objects by bucket and key; with `is_failing` every request is a 403."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.is_failing = False
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_PUT(self) -> None:
                outer.objects[outer._key(self.path)] = outer._body(self)
                outer._answer(self, 403 if outer.is_failing else 200)

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                if outer.is_failing:
                    outer._answer(self, 403)
                elif "list-type" in parts.query:
                    outer._answer(self, 200, outer._listing(parts.path.strip("/"), parse_qs(parts.query)))
                else:
                    outer._send_range(self)

            def do_POST(self) -> None:
                bucket = urlsplit(self.path).path.strip("/")
                keys = re.findall(r"<Key>(.*?)</Key>", outer._body(self).decode())
                for key in keys:
                    outer.objects.pop(f"{bucket}/{key}", None)
                rows = "".join(f"<Deleted><Key>{key}</Key></Deleted>" for key in keys)
                outer._answer(self, 200, f'<?xml version="1.0"?><DeleteResult>{rows}</DeleteResult>'.encode())

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def _key(self, path: str) -> str:
        return unquote(urlsplit(path).path).strip("/")

    def _body(self, handler: BaseHTTPRequestHandler) -> bytes:
        return handler.rfile.read(int(handler.headers.get("content-length", 0)))

    def _listing(self, bucket: str, query: dict[str, list[str]]) -> bytes:
        prefix = query.get("prefix", [""])[0]
        keys = [key.removeprefix(f"{bucket}/") for key in self.objects if key.startswith(f"{bucket}/{prefix}")]
        rows = "".join(
            f"<Contents><Key>{key}</Key><LastModified>2026-11-30T00:00:00.000Z</LastModified><ETag>e</ETag>"
            f"<Size>{len(self.objects[f'{bucket}/{key}'])}</Size></Contents>"
            for key in sorted(keys)
        )
        return (
            f'<?xml version="1.0"?><ListBucketResult><IsTruncated>false</IsTruncated>{rows}</ListBucketResult>'.encode()
        )

    def _send_range(self, handler: BaseHTTPRequestHandler) -> None:
        found = self.objects.get(self._key(handler.path))
        if found is None:
            self._answer(handler, 404)
            return
        first, last = (int(one) for one in handler.headers["range"].removeprefix("bytes=").split("-"))
        if first >= len(found):
            self._answer(handler, 416)
            return
        part = found[first : last + 1]
        span = f"bytes {first}-{first + len(part) - 1}/{len(found)}"
        self._answer(handler, 206, part, **{"content-range": span})

    def _answer(self, handler: BaseHTTPRequestHandler, status: int, body: bytes = b"", **headers: str) -> None:
        handler.send_response(status)
        fixed = {"content-length": str(len(body)), "etag": '"e"', "last-modified": "Mon, 30 Nov 2026 00:00:00 GMT"}
        for name, value in {**fixed, **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)


@contextmanager
def running_s3() -> Iterator[S3Server]:
    """A running server."""
    made = S3Server()
    thread = Thread(target=made.server.serve_forever)
    thread.start()
    try:
        yield made
    finally:
        made.server.shutdown()
        thread.join()
        made.server.server_close()
