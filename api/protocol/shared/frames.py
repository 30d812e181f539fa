"""Server-sent event frames, encoded as bytes: LF line ends, one protocol event in a frame."""

import re

import msgspec

DONE = b"data: [DONE]\n\n"
# A comment without an empty line of its own: some clients take an empty line for the end of an event without data.
HEARTBEAT = b": ping\n"

_encode = msgspec.json.Encoder().encode
# These characters are legal in JSON, but str.splitlines and similar functions of clients end a line at them:
# U+0085, U+2028, U+2029.
_LINE_BREAKS = re.compile(b"\xc2\x85|\xe2\x80[\xa8\xa9]")


def json_line(value: object) -> bytes:
    """`value` as one line of UTF-8 JSON, also for clients that split lines at Unicode line breaks."""
    data = _encode(value)
    return data if data.isascii() else _LINE_BREAKS.sub(_escape, data)


def _escape(found: re.Match[bytes]) -> bytes:
    return b"\\u%04x" % ord(found.group().decode())


def frame(value: object) -> bytes:
    """A frame without an event name, as Chat and Completions send it."""
    return b"data: " + json_line(value) + b"\n\n"


def event_frame(value: dict[str, object]) -> bytes:
    """A frame whose event name is the body's `type`, as Responses sends it."""
    return b"event: " + str(value["type"]).encode() + b"\ndata: " + json_line(value) + b"\n\n"
