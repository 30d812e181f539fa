"""Reads parts of one file whose offsets mostly grow: a chunk is read once for all parts that lie in it."""

from storage.files.content_store import ContentStore
from storage.files.stored_files import CHUNK_BYTES


class ContentReader:
    """Keeps the chunk that was read last."""

    def __init__(self, content: ContentStore, file_id: str, size_bytes: int) -> None:
        self._content = content
        self._file_id = file_id
        self._size_bytes = size_bytes
        self._number = -1
        self._chunk = b""

    def read(self, offset: int, length: int) -> bytes:
        """The bytes of one part; FileNotFound where the content is gone."""
        pieces: list[bytes] = []
        while length > 0:
            number, start = divmod(offset, CHUNK_BYTES)
            piece = self._chunk_at(number)[start : start + length]
            pieces.append(piece)
            offset, length = offset + len(piece), length - len(piece)
        return b"".join(pieces)

    def _chunk_at(self, number: int) -> bytes:
        if number != self._number:
            start = number * CHUNK_BYTES
            self._chunk = self._content.read(self._file_id, start, min(CHUNK_BYTES, self._size_bytes - start))
            self._number = number
        return self._chunk
