"""The folders that workers converted GGUF files into: which file each is of, and how large it is."""

from dataclasses import dataclass
from pathlib import Path

import msgspec

_SOURCE_NAME = "source.json"


class _Source(msgspec.Struct, frozen=True):
    """What `workers.model.gguf` writes beside a conversion.

    path:             of the file when it was converted
    mtime_ns_by_path: files that hold the same bytes
    """

    path: str
    dtype: str
    mtime_ns_by_path: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """A converted model.

    paths: of the GGUF files that it is of; the first is the one that was converted
    """

    folder: Path
    paths: tuple[Path, ...]
    size_bytes: int

    def is_of(self, source: Path) -> bool:
        """Whether the GGUF file was converted into this folder."""
        return source in self.paths


def list_conversions(folder: Path) -> list[Conversion]:
    """The conversions in the folder, by name."""
    found = []
    for one in sorted(folder.glob("[!.]*")):
        try:
            source = msgspec.json.decode((one / _SOURCE_NAME).read_bytes(), type=_Source)
        except (FileNotFoundError, NotADirectoryError, msgspec.MsgspecError):
            continue
        paths = dict.fromkeys((source.path, *source.mtime_ns_by_path))
        found.append(Conversion(folder=one, paths=tuple(Path(path) for path in paths), size_bytes=size_of(one)))
    return found


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
