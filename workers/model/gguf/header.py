"""The header of a GGUF file: metadata and tensor table, read without the weights.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import math
import mmap
import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from storage.errors import ModelFilesMissing, ModelUnsupported

_MAGIC = b"GGUF"
_VERSIONS = frozenset({2, 3})
_BIG_ENDIAN_VERSIONS = frozenset(int.from_bytes(version.to_bytes(4, "big"), "little") for version in _VERSIONS)
_ALIGNMENT = 32
# Types of metadata values: numbers by their format for `struct`, then strings and arrays.
_FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING = 8
_ARRAY = 9
_MAX_DIMENSIONS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTensor:
    """One tensor of the file.

    shape:  in torch's order
    offset: bytes from the begin of all tensor data
    """

    name: str
    shape: tuple[int, ...]
    quantization: GGMLQuantizationType
    offset: int

    @property
    def num_elements(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufHeader:
    """What a GGUF file says of its model.

    metadata:   arrays of strings that the reader did not ask for are their length
    data_start: where the tensor data begin
    """

    metadata: Mapping[str, object]
    tensors: Mapping[str, StoredTensor]
    data_start: int

    @property
    def architecture(self) -> str:
        """The architecture's name in llama.cpp, which is also the prefix of its keys."""
        return self.text("general.architecture") or ""

    def of_architecture(self, key: str) -> object:
        """The value of a key below the architecture's prefix; None where it is absent."""
        return self.metadata.get(f"{self.architecture}.{key}")

    def text(self, key: str) -> str | None:
        """A string; None where the key is absent or holds something else."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) else None

    def whole_number(self, key: str) -> int | None:
        """A whole number; None where the key is absent or holds something else."""
        value = self.metadata.get(key)
        return value if isinstance(value, int) else None

    def listed(self, key: str) -> list[object]:
        """An array; empty where the key is absent or holds something else."""
        value = self.metadata.get(key)
        return value if isinstance(value, list) else []


def read_header(path: Path, string_arrays: Collection[str] = ()) -> GgufHeader:
    """Metadata and tensor table of a file that holds all its tensors.

    string_arrays: keys whose strings are wanted; of the others only the count is kept

    Raises ModelFilesMissing for a truncated file, ModelUnsupported for one that is not GGUF.
    """
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise ModelUnsupported(
                f"{path} is a file, and no GGUF file: give a .gguf file or a folder with config.json"
            )
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                header, end = _parsed(_Cursor(data), path, string_arrays)
            except (struct.error, UnicodeDecodeError, _BeyondTheEnd) as error:
                raise ModelFilesMissing(
                    f"{path} is truncated or damaged ({size_bytes} bytes end within its header): fetch it again"
                ) from error
    if end > size_bytes:
        raise ModelFilesMissing(f"{path} is truncated: it has {size_bytes} bytes of {end}: fetch it again")
    return header


class _BeyondTheEnd(Exception):
    """A length that the file cannot hold."""


class _Cursor:
    """Reads values one after another."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self.position = len(_MAGIC)

    def numbers(self, form: str) -> tuple[int, ...]:
        """Numbers of a format of `struct`, little-endian."""
        packed = struct.Struct("<" + form)
        values: tuple[int, ...] = packed.unpack_from(self._data, self.position)
        self.position += packed.size
        return values

    def number(self, form: str) -> int:
        """One number."""
        return self.numbers(form)[0]

    def skip(self, num_bytes: int) -> int:
        """The position before a run of bytes; the cursor stands behind it."""
        start = self.position
        self.position += num_bytes
        if self.position > len(self._data):
            raise _BeyondTheEnd
        return start

    def string(self) -> str:
        """A string with its length before it."""
        start = self.skip(self.number("Q"))
        return self._data[start : self.position].decode()

    def value(self, kind: int, is_wanted: bool) -> object:
        """A metadata value of the type."""
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self._array(is_wanted)
        if kind not in _FORMATS:
            raise _BeyondTheEnd
        return self.number(_FORMATS[kind])

    def _array(self, is_wanted: bool) -> object:
        kind, count = self.number("I"), self.number("Q")
        if count > len(self._data):
            raise _BeyondTheEnd
        if kind in _FORMATS:
            return list(self.numbers(f"{count}{_FORMATS[kind]}"))
        if kind != _STRING:
            raise _BeyondTheEnd
        if is_wanted:
            return [self.string() for _ in range(count)]
        for _ in range(count):
            self.skip(self.number("Q"))
        return count


def _parsed(cursor: _Cursor, path: Path, string_arrays: Collection[str]) -> tuple[GgufHeader, int]:
    """The header, and how many bytes the whole file must have."""
    version = cursor.number("I")
    if version in _BIG_ENDIAN_VERSIONS:
        raise ModelUnsupported(f"{path} is a GGUF file for big-endian machines: use the little-endian one")
    if version not in _VERSIONS:
        raise ModelUnsupported(f"{path} is of GGUF version {version}: versions 2 and 3 are read")
    num_tensors, num_values = cursor.numbers("QQ")
    metadata: dict[str, object] = {}
    for _ in range(num_values):
        key = cursor.string()
        metadata[key] = cursor.value(cursor.number("I"), key in string_arrays)
    tensors: dict[str, StoredTensor] = {}
    data_bytes = 0
    for _ in range(num_tensors):
        tensor = _tensor(cursor, path)
        tensors[tensor.name] = tensor
        per_block, block_bytes = GGML_QUANT_SIZES[tensor.quantization]
        data_bytes = max(data_bytes, tensor.offset + tensor.num_elements // per_block * block_bytes)
    alignment = metadata.get("general.alignment", _ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1:
        raise _BeyondTheEnd
    data_start = -(-cursor.position // alignment) * alignment
    end = data_start + data_bytes if tensors else cursor.position
    return GgufHeader(metadata=metadata, tensors=tensors, data_start=data_start), end


def read_floats(path: Path, header: GgufHeader, name: str) -> list[float]:
    """The numbers of a small tensor in float32."""
    tensor = header.tensors[name]
    if tensor.quantization is not GGMLQuantizationType.F32:
        raise ModelUnsupported(f"{path} stores {name} in {tensor.quantization.name} instead of F32")
    with path.open("rb") as file:
        file.seek(header.data_start + tensor.offset)
        return list(struct.unpack(f"<{tensor.num_elements}f", file.read(4 * tensor.num_elements)))


def _tensor(cursor: _Cursor, path: Path) -> StoredTensor:
    """One entry of the tensor table."""
    name = cursor.string()
    num_dimensions = cursor.number("I")
    if num_dimensions > _MAX_DIMENSIONS:
        raise _BeyondTheEnd
    # The file names the dimension that moves fastest first.
    shape = tuple(reversed(cursor.numbers(f"{num_dimensions}Q")))
    kind, offset = cursor.number("I"), cursor.number("Q")
    try:
        quantization = GGMLQuantizationType(kind)
    except ValueError as error:
        raise ModelUnsupported(f"{path} stores {name} in a number format that is not known ({kind})") from error
    return StoredTensor(name=name, shape=shape, quantization=quantization, offset=offset)
