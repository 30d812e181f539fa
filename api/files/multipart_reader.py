"""multipart/form-data, read part by part while its bytes arrive. Source: RFC 7578; the parser is python-multipart's."""

import re
import time
from typing import Protocol

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from storage.errors import InvalidRequest, UnsupportedMediaType

# RFC 2046, 5.1.1, allows 1 to 70 characters; clients choose 16 or more.
_GOOD_BOUNDARY = re.compile(rb"[0-9A-Za-z'()+_,./:=? -]{7,69}[0-9A-Za-z'()+_,./:=?-]")
_MAX_HEADERS = 8
_MAX_HEADER_BYTES = 2048
_MAX_NAME_CHARACTERS = 100
_FORM = b"multipart/form-data"
# The boundary must not begin a line of a part (RFC 2046, 5.1.1). A few such lines are taken as content; for a body of
# nothing else the parser needs a hundred times as long.
_MAX_BOUNDARIES = 1000
# Between two slices other threads, the event loop above all, may take the interpreter lock.
_SLICE_BYTES = 64 * 1024


class PartReader(Protocol):
    """What takes the parts of a form, one after another; it may raise InvalidRequest."""

    def begin(self, name: str, filename: str | None) -> None:
        """A part begins; a file has a filename."""

    def data(self, data: memoryview) -> None:
        """Bytes of the part."""

    def end(self) -> None:
        """The part is complete."""


class MultipartReader:
    """Parses a form; raises InvalidRequest for one that is malformed, and what its PartReader raises."""

    def __init__(self, boundary: bytes, parts: PartReader) -> None:
        self._parts = parts
        self._headers: dict[bytes, bytes] = {}
        self._field, self._value = b"", b""
        self._has_ended = False
        self._delimiter = b"\r\n--" + boundary
        self._num_boundaries = 0
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._headers.clear,
                "on_header_field": self._on_header_field,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_finished,
                "on_part_data": self._on_part_data,
                "on_part_end": parts.end,
                "on_end": self._on_end,
            },
            max_header_count=_MAX_HEADERS,
            max_header_size=_MAX_HEADER_BYTES,
        )

    def feed(self, data: bytes) -> None:
        """Parse the next bytes; for threads, as it may take milliseconds."""
        for start in range(0, len(data), _SLICE_BYTES):
            piece = data[start : start + _SLICE_BYTES]
            self._num_boundaries += piece.count(self._delimiter)
            if self._num_boundaries > _MAX_BOUNDARIES:
                raise InvalidRequest(f"The multipart form has its boundary more than {_MAX_BOUNDARIES} times.")
            try:
                self._parser.write(piece)
            except FormParserError as error:
                raise InvalidRequest(f"The multipart form is malformed: {error}.") from error
            time.sleep(0)

    def finish(self) -> None:
        """Raise InvalidRequest unless the form is complete."""
        if not self._has_ended:
            raise InvalidRequest("The multipart form ends before its last boundary.")

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        name = self._field.lower()
        if name in self._headers:
            raise InvalidRequest("A part of the multipart form has the same header twice.")
        self._headers[name] = self._value
        self._field, self._value = b"", b""

    def _on_headers_finished(self) -> None:
        disposition, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        if disposition != b"form-data" or b"name" not in options:
            raise InvalidRequest("A part of the multipart form has no 'Content-Disposition: form-data' with a name.")
        if b"content-transfer-encoding" in self._headers:
            raise InvalidRequest("Parts of a multipart form have no transfer encoding (RFC 7578, 4.7).")
        filename = options.get(b"filename")
        name = _text(options[b"name"])
        if len(name) > _MAX_NAME_CHARACTERS:
            raise InvalidRequest("A part of the multipart form has a name that is too long.")
        self._parts.begin(name, None if filename is None else _text(filename))

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._parts.data(memoryview(data)[start:end])

    def _on_end(self) -> None:
        self._has_ended = True


def boundary_of(content_type: bytes | None) -> bytes:
    """The boundary of a form; UnsupportedMediaType for another media type, InvalidRequest without a usable one."""
    media_type, options = parse_options_header(content_type or b"")
    if media_type != _FORM:
        raise UnsupportedMediaType("Send the file as 'content-type: multipart/form-data'.")
    boundary = options.get(b"boundary", b"")
    if not _GOOD_BOUNDARY.fullmatch(boundary):
        raise InvalidRequest("The 'Content-Type' header needs a boundary of 8 to 70 characters (RFC 2046, 5.1.1).")
    return boundary


def _text(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRequest("Names in a multipart form must be UTF-8.") from error
