"""Lines of a batch's input file, cut out of its bytes piece by piece: at line feeds and nowhere else.

U+2028, U+2029 and U+0085 are legal inside of JSON strings; most functions that split text into lines cut there too.
"""

from collections.abc import Iterator

import msgspec

_BOM = b"\xef\xbb\xbf"
_BLANKS = b" \t\r"


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """A line that is not blank.

    number: of the physical line, from 1
    offset: of its first byte in the file
    data:   without the line's end and blanks around it; None where it is longer than a line may be
    """

    number: int
    offset: int
    data: bytes | None


class LineSplitter:
    """Splits one file, from its start or from the beginning of a later line.

    offset: of the first byte behind the last complete line
    number: of the last complete line
    """

    def __init__(self, *, offset: int, number: int, max_line_bytes: int) -> None:
        self.offset = offset
        self.number = number
        self._max_bytes = max_line_bytes
        self._held: list[bytes] = []
        self._num_held = 0

    def push(self, data: bytes) -> Iterator[Line]:
        """The lines that these bytes complete, and one that has become too long; nothing may be pushed behind that."""
        start = 0
        while (end := data.find(b"\n", start)) >= 0:
            self._hold(data[start:end])
            line = self._complete(1)
            start = end + 1
            if line is not None:
                yield line
        self._hold(data[start:])
        if self._num_held > self._max_bytes:
            yield Line(number=self.number + 1, offset=self.offset, data=None)

    def close(self) -> Line | None:
        """The last line, where the file does not end with a line feed."""
        return self._complete(0) if self._num_held else None

    def _hold(self, piece: bytes) -> None:
        if piece:
            self._held.append(piece)
            self._num_held += len(piece)

    def _complete(self, num_end_bytes: int) -> Line | None:
        whole = b"".join(self._held)
        offset = self.offset
        self.offset += len(whole) + num_end_bytes
        self.number += 1
        self._held, self._num_held = [], 0
        if offset == 0 and whole.startswith(_BOM):
            whole, offset = whole[len(_BOM) :], len(_BOM)
        kept = whole.lstrip(_BLANKS)
        offset += len(whole) - len(kept)
        kept = kept.rstrip(_BLANKS)
        if not kept:
            return None
        return Line(number=self.number, offset=offset, data=kept if len(kept) <= self._max_bytes else None)
