"""Size limits of one HTTP/1.1 message: its head, the overhead of its chunks, and what is discarded of its body."""

MAX_HEAD_BYTES = 64 * 1024
# Of a body that nobody reads any more, this many bytes are discarded before the connection is closed: a client that is
# disconnected while it writes may never read the response.
_MAX_DISCARDED_BYTES = 64_000_000
# Chunk sizes, chunk extensions and trailers may take this many bytes more than the body itself.
_MAX_OVERHEAD_BYTES = 2 * MAX_HEAD_BYTES


class MessageSizes:
    """Byte counts of the message that a connection is receiving."""

    __slots__ = ("_body_bytes", "_discarded_bytes", "_head_bytes", "_head_tail", "_num_noted", "_received_bytes")

    def __init__(self) -> None:
        self._head_bytes = 0
        self._head_tail = b""
        self._received_bytes = 0
        self._body_bytes = 0
        self._discarded_bytes = 0
        self._num_noted = 0

    def has_room_for_head(self, data: bytes) -> bool:
        """Whether the head would end within its limit with these bytes, or still can."""
        room = MAX_HEAD_BYTES - self._head_bytes
        return len(data) <= room or b"\r\n\r\n" in self._head_tail + data[: max(room, 3)]

    def add_head(self, data: bytes) -> None:
        """Count bytes of a head that is not complete."""
        self._head_bytes += len(data)
        self._head_tail = data[-3:]

    def add_received(self, data: bytes) -> None:
        """Count bytes of the whole message."""
        self._received_bytes += len(data)

    def begin_body(self) -> None:
        """Note that the head is complete."""
        self._head_bytes, self._head_tail, self._body_bytes, self._num_noted = 0, b"", 0, 0

    def add_body(self, data: bytes, *, is_discarded: bool) -> bool:
        """Count bytes of the body; whether the client may go on sending."""
        self._body_bytes += len(data)
        if is_discarded:
            self._discarded_bytes += len(data)
        return self._discarded_bytes <= _MAX_DISCARDED_BYTES

    def take_progress(self) -> int:
        """Bytes of the body, without those that were discarded, since the last call."""
        num_before, self._num_noted = self._num_noted, self._body_bytes - self._discarded_bytes
        return self._num_noted - num_before

    def end(self) -> None:
        """Note that the message is complete."""
        self._received_bytes = self._discarded_bytes = 0

    @property
    def has_too_much_overhead(self) -> bool:
        """Whether more bytes than the body itself, and more than a head may have, are chunk headers and trailers."""
        return self._received_bytes - self._body_bytes > _MAX_OVERHEAD_BYTES + self._body_bytes
