"""What a converted folder came from, in its `source.json`; read without torch."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import msgspec

from storage.process.atomic_file import replace_file

# Counted up when the same file would be converted to something else.
CONVERTER_VERSION = 2
SOURCE_NAME = "source.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversionSource:
    """The GGUF file of a converted folder.

    path:             where it lay when it was converted
    dtype:            precision of the weights
    converter:        `CONVERTER_VERSION`
    versions:         of the packages that converted it
    mtime_ns_by_path: files that are known to hold the same bytes, with their times
    """

    path: str
    size_bytes: int
    sha256: str
    dtype: str
    converter: int
    versions: dict[str, str]
    mtime_ns_by_path: dict[str, int]

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """The source of a converted folder; None for another folder."""
        try:
            return msgspec.json.decode((folder / SOURCE_NAME).read_bytes(), type=cls)
        except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError):
            return None

    def write(self, folder: Path) -> None:
        """Write it, so that a reader sees the old one or the new one."""
        replace_file(folder / SOURCE_NAME, msgspec.json.format(msgspec.json.encode(self)))

    def seen(self, path: Path, mtime_ns: int) -> Self:
        """With a file that holds the same bytes."""
        return replace(self, mtime_ns_by_path=self.mtime_ns_by_path | {str(path): mtime_ns})

    def is_of(self, path: Path, dtype: str) -> bool:
        """Whether the file has the size and the time at which it was read."""
        status = path.stat()
        return (
            self.converter == CONVERTER_VERSION
            and self.dtype == dtype
            and self.size_bytes == status.st_size
            and self.mtime_ns_by_path.get(str(path)) == status.st_mtime_ns
        )


def find_converted(path: Path, dtype: str, cache: Path) -> Path | None:
    """The converted folder of a file that has not changed since, without reading the file."""
    for folder in sorted(cache.glob("[!.]*")):
        source = ConversionSource.read(folder)
        if source is not None and source.is_of(path, dtype):
            return folder
    return None
