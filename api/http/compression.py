"""Compression: of JSON responses with gzip or Brotli, and of request bodies with gzip.

Streams are never compressed: a compressor would hold back events.
"""

import asyncio
import gzip
import re
import zlib
from functools import lru_cache

import brotli
from starlette.types import Message

from storage.errors import BodyTooLarge, InvalidRequest

_MIN_BYTES = 1024
# Larger bodies are compressed in a thread; both libraries let go of the interpreter lock.
_MAX_INLINE_BYTES = 32 * 1024
# Levels that cost about as much time as the encoding of the JSON itself.
_GZIP_LEVEL = 4
_BROTLI_QUALITY = 4
_GZIP_WBITS = 16 + zlib.MAX_WBITS
_NO_QUALITY = re.compile(r"q=0(?:\.0{0,3})?")

Headers = list[tuple[bytes, bytes]]


@lru_cache(maxsize=256)
def coding_of(accept_encoding: bytes) -> str | None:
    """`br` or `gzip`, of which the first wins, for the value of `Accept-Encoding`; None for neither.

    Source: RFC 9110, 12.5.3. A bare `*` is not taken as a wish for compression.
    """
    accepted = set()
    for part in accept_encoding.decode("latin-1").lower().split(","):
        name, _, quality = part.partition(";")
        if not _NO_QUALITY.fullmatch(quality.strip()):
            accepted.add(name.strip())
    return "br" if "br" in accepted else "gzip" if accepted & {"gzip", "x-gzip"} else None


def is_compressible(headers: Headers) -> bool:
    """Whether a response is JSON of more than 1 kB; a stream has no content length."""
    length = is_json = 0
    for name, value in headers:
        if name == b"content-length":
            length = int(value)
        elif name == b"content-type":
            is_json = value.startswith(b"application/json")
        elif name == b"content-encoding":
            return False
    return bool(is_json and length > _MIN_BYTES)


async def compressed(start: Message, body: bytes, coding: str) -> tuple[Message, bytes]:
    """The start of a response and its body in that coding, `br` or `gzip`."""
    small = (
        compress(body, coding) if len(body) <= _MAX_INLINE_BYTES else await asyncio.to_thread(compress, body, coding)
    )
    kept = [(name, value) for name, value in start["headers"] if name != b"content-length"]
    coded = [(b"content-encoding", coding.encode()), (b"content-length", b"%d" % len(small))]
    return {**start, "headers": kept + coded}, small


def compress(body: bytes, coding: str) -> bytes:
    """The body in that coding, `br` or `gzip`."""
    if coding == "br":
        return bytes(brotli.compress(body, quality=_BROTLI_QUALITY))
    return gzip.compress(body, _GZIP_LEVEL, mtime=0)


def decompress(body: bytes, limit: int) -> bytes:
    """What a gzip body unpacks to; BodyTooLarge beyond `limit` bytes, InvalidRequest for what is no gzip."""
    pieces: list[bytes] = []
    room = limit
    while body:
        member = zlib.decompressobj(wbits=_GZIP_WBITS)
        try:
            piece = member.decompress(body, room + 1)
        except zlib.error as error:
            raise InvalidRequest("The request body is not valid gzip.") from error
        room -= len(piece)
        if room < 0:
            raise BodyTooLarge(f"The request body unpacks to more than {limit} bytes.")
        if not member.eof:
            raise InvalidRequest("The request body is gzip that ends too early.")
        pieces.append(piece)
        body = member.unused_data
    return b"".join(pieces)
