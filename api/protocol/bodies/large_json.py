"""Decoding of large JSON bodies that lets other threads run: long strings are decoded in short pieces.

A decoder holds the interpreter lock for a whole document. What lies inside long strings is cut out, decoded piece by
piece, and put back into the decoded rest.
"""

import os
import re
import time

from pydantic_core import from_json

from api.protocol.bodies.body_limits import MAX_BACKSLASHES, SLICE_BYTES, refuse_too_many_values
from storage.errors import InvalidRequest

_BACKSLASH = ord("\\")
# The longest text that must stay together is a surrogate pair, as in "\ud83d\ude00".
_MAX_ESCAPE_BYTES = 12
# How far an offset to cut at is searched for.
_SEARCHED_BYTES = 64
_HIGH_SURROGATE = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}")


def decode_large(body: bytes, slice_bytes: int = SLICE_BYTES) -> object:
    """The value of a JSON body, a repeated name resolved to its last value; for threads.

    Raises InvalidRequest for too many values and for what is no JSON.
    """
    runs = refuse_too_many_values(body, slice_bytes)
    try:
        cuts = [cut for cut in (_cut_of(body, start, end) for start, end in runs) if cut is not None]
        if not cuts:
            return from_json(body, allow_inf_nan=False)
        nonce = os.urandom(16).hex()
        short, position = [], 0
        for index, (start, end) in enumerate(cuts):
            short += [body[position:start], f"{nonce}{index:08x}".encode()]
            position = end
        value = from_json(b"".join([*short, body[position:]]), allow_inf_nan=False)
        texts = [_decoded(body, start, end, slice_bytes) for start, end in cuts]
    except ValueError as error:
        # The position that the decoder names is not one of the body.
        reason = str(error).partition(" at line ")[0]
        raise InvalidRequest(f"We could not parse the JSON body of your request: {reason}.") from None
    return _restored(value, re.compile(f"{nonce}([0-9a-f]{{8}})"), texts)


def _cut_of(body: bytes, start: int, end: int) -> tuple[int, int] | None:
    """Where to cut out the inside of a string, None where that is not worth it or is not known."""
    if end - start < 4 * _SEARCHED_BYTES:
        return None
    first = _safe_cut(body, start + _SEARCHED_BYTES)
    last = _safe_cut(body, end - 2 * _SEARCHED_BYTES)
    return None if first is None or last is None or last <= first else (first, last)


def _safe_cut(body: bytes, low: int) -> int | None:
    """An offset inside a string, at `low` or soon after, that splits no character and no escape; None without one."""
    for offset in range(low, low + _SEARCHED_BYTES):
        if body[offset] & 0xC0 == 0x80:
            continue  # inside a UTF-8 sequence
        before = body[offset - _MAX_ESCAPE_BYTES : offset]
        if _BACKSLASH not in before:
            return offset
        # A backslash behind complete pairs of them begins an escape, so what is before it is complete.
        if (
            body[offset] == _BACKSLASH
            and _num_backslashes_before(body, offset) % 2 == 0
            and not _HIGH_SURROGATE.fullmatch(before[-6:])
        ):
            return offset
    return None


def _num_backslashes_before(body: bytes, offset: int) -> int:
    """How many backslashes end there; an odd number where there are too many to know."""
    if body[offset - 1] != _BACKSLASH:
        return 0
    before = body[max(0, offset - MAX_BACKSLASHES) : offset]
    num_backslashes = len(before) - len(before.rstrip(b"\\"))
    return num_backslashes if num_backslashes < len(before) else 1


def _decoded(body: bytes, start: int, end: int, slice_bytes: int) -> list[str]:
    """The text of the inside of a string, in pieces."""
    pieces = []
    while start < end:
        stop = start + slice_bytes
        offset = _safe_cut(body, stop) if stop + 2 * _SEARCHED_BYTES < end else end
        if offset is None:
            offset = end
        pieces.append(from_json(b'"%b"' % body[start:offset]))
        start = offset
        time.sleep(0)  # lets another thread take the interpreter lock
    return pieces


def _restored(value: object, marker: re.Pattern[str], texts: list[list[str]]) -> object:
    """The value with the texts in place of their markers."""
    if isinstance(value, str):
        parts = marker.split(value)
        return value if len(parts) == 1 else "".join(_with_texts(parts, texts))
    if isinstance(value, list):
        return [_restored(one, marker, texts) for one in value]
    if isinstance(value, dict):
        return {_restored(name, marker, texts): _restored(one, marker, texts) for name, one in value.items()}
    return value


def _with_texts(parts: list[str], texts: list[list[str]]) -> list[str]:
    """What `re.split` found, with each number of a text replaced by the pieces of the text."""
    return [piece for index, part in enumerate(parts) for piece in (texts[int(part, 16)] if index % 2 else [part])]
