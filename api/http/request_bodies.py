"""Request bodies: read within the size limit, decompressed and parsed; large ones beside the event loop."""

from typing import TypeVar

from starlette.requests import ClientDisconnect, Request

from api.cpu_bound_work import CpuBoundWork
from api.headers import header_of
from api.http.compression import decompress
from api.protocol.bodies.large_json import decode_large
from api.protocol.shared.wire import WireRequest
from storage.errors import BodyTooLarge, UnsupportedMediaType

R = TypeVar("R", bound=WireRequest)

# Up to here a body is parsed on the event loop.
_SMALL_BODY_BYTES = 64 * 1024


class RequestBodies:
    """Reads and parses the bodies of requests."""

    def __init__(self, cpu_bound: CpuBoundWork, *, max_bytes: int) -> None:
        self._cpu_bound = cpu_bound
        self._max_bytes = max_bytes

    async def read(self, request: Request) -> bytes:
        """The whole body; raises UnsupportedMediaType or BodyTooLarge.

        A body that is too large is refused at once; the server discards what the client still sends of it.
        """
        _refuse_other_formats(request)
        limit = self._max_bytes
        if declared_size(request) > limit:
            raise _too_large(limit)
        pieces: list[bytes] = []
        size_bytes = 0
        has_more = True
        while has_more:
            message = await request.receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            piece, has_more = message.get("body", b""), message.get("more_body", False)
            size_bytes += len(piece)
            if size_bytes > limit:
                raise _too_large(limit)
            pieces.append(piece)
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if coding_of_body(request) == b"identity":
            return body
        return await self._cpu_bound.run(lambda: decompress(body, limit))

    async def parse(self, kind: type[R], body: bytes) -> R:
        """The request of that kind that the body holds; raises as its `parse`.

        Large bodies are parsed in a thread, after a check that they do not hold too many values: the decoder holds the
        interpreter lock, so that a thread alone would not keep the event loop free.
        """
        if len(body) <= _SMALL_BODY_BYTES:
            return kind.parse(body)
        return await self._cpu_bound.run(lambda: kind.parse_value(decode_large(body)))


def declared_size(request: Request) -> int:
    """The body's length in bytes; 0 where the request does not say it."""
    declared = header_of(request.scope, b"content-length")
    return int(declared) if declared is not None and declared.isdigit() else 0


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"The request body is larger than {limit} bytes.")


def _refuse_other_formats(request: Request) -> None:
    media_type = (header_of(request.scope, b"content-type") or b"").partition(b";")[0].strip().lower()
    if media_type and media_type != b"application/json" and not media_type.endswith(b"+json"):
        shown = media_type[:100].decode("latin-1")
        raise UnsupportedMediaType(f"Send the body as 'content-type: application/json', not as '{shown}'.")
    if coding_of_body(request) not in (b"identity", b"gzip", b"x-gzip"):
        raise UnsupportedMediaType("The only coding that a request body may be compressed with is gzip.")


def coding_of_body(request: Request) -> bytes:
    """What the body is compressed with; `identity` for nothing."""
    return (header_of(request.scope, b"content-encoding") or b"identity").strip().lower()
