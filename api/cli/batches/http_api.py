"""The HTTP API as commands call it: JSON, uploads and downloads; errors are the server's own sentences."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import httpx2

from storage.errors import PlatformError

_TIMEOUT_S = 30.0
_DOWNLOADED_AT_ONCE = 256 * 1024

JsonObject = dict[str, Any]  # Any: an answer of the API, whose shape the caller knows
# Bytes that were sent since the last call.
Report = Callable[[int], None]


class ApiRefused(PlatformError):
    """The API answered with an error that trying again does not change."""

    code = "api_refused"


class ApiUnavailable(PlatformError):
    """The API does not answer, or says that it cannot at the moment."""

    code = "api_unavailable"
    retryable = True


class HttpApi:
    """A client of the API; use it as a context manager."""

    def __init__(self, base_url: str, api_key: str | None) -> None:
        """base_url: with or without `/v1`"""
        self.base_url = base_url.rstrip("/").removesuffix("/v1") + "/v1"
        headers = {} if api_key is None else {"authorization": f"Bearer {api_key}"}
        self._client = httpx2.Client(headers=headers, timeout=_TIMEOUT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def get(self, path: str, **parameters: str | int) -> JsonObject:
        """The object that a GET answers with; ApiRefused or ApiUnavailable."""
        with self._translated():
            return _object_of(self._client.get(self.base_url + path, params=parameters))

    def post(self, path: str, body: JsonObject) -> JsonObject:
        """The object that a POST answers with; raises as `get`."""
        with self._translated():
            return _object_of(self._client.post(self.base_url + path, json=body))

    def upload(self, path: Path, *, purpose: str, on_sent: Report) -> JsonObject:
        """The file object of a local file, which is streamed; raises as `get`, and OSError."""
        with _CountedFile(path, on_sent) as file, self._translated():
            parts = {"file": (path.name, file)}
            return _object_of(self._client.post(f"{self.base_url}/files", data={"purpose": purpose}, files=parts))

    def download(self, file_id: str, sink: BinaryIO) -> None:
        """Write a file's content to the sink; raises as `get`, and OSError."""
        with self._translated(), self._client.stream("GET", f"{self.base_url}/files/{file_id}/content") as answer:
            if answer.is_error:
                answer.read()
                _object_of(answer)
            for piece in answer.iter_bytes(_DOWNLOADED_AT_ONCE):
                sink.write(piece)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except httpx2.HTTPError as error:
            raise ApiUnavailable(f"no platform answers at {self.base_url}: {error}") from error


class _CountedFile(io.FileIO):
    """A local file that reports what was read of it."""

    def __init__(self, path: Path, on_read: Report) -> None:
        super().__init__(path)
        self._on_read = on_read

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(-1 if size is None else size) or b""
        self._on_read(len(data))
        return data


def _object_of(answer: httpx2.Response) -> JsonObject:
    try:
        found = answer.json()
    except ValueError:
        found = None
    if answer.is_success and isinstance(found, dict):
        return found
    error = found.get("error") if isinstance(found, dict) else None
    message = error.get("message") if isinstance(error, dict) else None
    kind = ApiUnavailable if answer.status_code in (408, 429) or answer.status_code >= 500 else ApiRefused
    raise kind(str(message or f"the server answered with status {answer.status_code}"))


def download_to(api: HttpApi, file_id: str, path: Path) -> None:
    """Write a file's content to a path, which is whole or as it was before; raises as `HttpApi.download`."""
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as sink:
            api.download(file_id, sink)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
