"""Start record: what the first start of a model found out, so that later starts need its weights alone.

The first start reads a model with transformers, maps its weights for the native library, and validates the result. That
takes seconds, most of them for importing transformers. The record keeps the map, the manifest and the logits to
validate against. It counts only while the files of the model and the libraries that read them are the same.
"""

import hashlib
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import structlog
import torch
from safetensors import safe_open
from torch import Tensor

from storage.model_manifest import ModelManifest
from storage.process.atomic_file import replace_file
from workers.model.native.weight_map import WeightMap
from workers.model.prepared_model import ValidatedMap
from workers.model.resources.mapped_weights import MappedWeights
from workers.model.validation import VALIDATION_ENDS

# Raised when a record holds or means something else than before.
_FORMAT = 3
# Records kept in a folder; models come and go.
_MAX_RECORDS = 64
_PREFIX = "start-"
_LIBRARIES = ("transformers", "tokenizers")
# What a model consists of; other files in its folder change nothing.
_FILES = ("*.json", "*.safetensors", "*.jinja", "*.model", "*.model.v*")

log = structlog.get_logger()


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a model besides its weights.

    manifest:      with the context length of the model itself
    num_token_ids: rows of its embedding
    """

    architecture: str
    num_parameters: int
    manifest: ModelManifest
    eos_token_ids: tuple[int, ...]
    num_token_ids: int


class _Stored(msgspec.Struct, frozen=True, kw_only=True):
    """expected: float32, row by row."""

    fingerprint: str
    facts: ModelFacts
    weight_map: WeightMap
    expected: bytes


class StartRecord:
    """The record of one model folder, in one type of numbers."""

    def __init__(self, folder: Path, source: str, dtype: torch.dtype) -> None:
        """folder: where records are kept
        source: the model's folder; a Hugging Face id has no record, since its files may change at every start
        """
        self._source = Path(source)
        self._dtype = dtype
        name = hashlib.sha256(f"{self._source.absolute()}\0{dtype}".encode()).hexdigest()[:20]
        self._path = folder / f"{_PREFIX}{name}.msgpack"

    def read(self) -> tuple[ModelFacts, ValidatedMap] | None:
        """What was recorded; None where nothing was, or where files or libraries have changed since."""
        stored = self._stored()
        if stored is None:
            return None
        expected = torch.frombuffer(bytearray(stored.expected), dtype=torch.float32).view(len(VALIDATION_ENDS), -1)
        return stored.facts, ValidatedMap(weight_map=stored.weight_map, expected=expected)

    def exists(self) -> bool:
        """Whether `read` would return something."""
        return self._stored() is not None

    def write(self, facts: ModelFacts, native: ValidatedMap, read_loaded: Callable[[str], Tensor]) -> None:
        """Record a model, unless its files name or hold other weights than the loaded model.

        read_loaded: gives a tensor of the loaded model by its name
        """
        if not self._source.is_dir():
            return
        read_file = tensors_of(self._source)
        mapped = MappedWeights()
        for name in native.weight_map.tensor_names():
            try:
                in_file, loaded = read_file(name), read_loaded(name)
                is_same = torch.equal(in_file.to(self._dtype), loaded)
                mapped.release([in_file, loaded])
            except KeyError:
                is_same = False
            if not is_same:
                log.info("start_not_recorded", model=str(self._source), why="its files hold other tensors", name=name)
                return
        stored = _Stored(
            fingerprint=_fingerprint(self._source),
            facts=facts,
            weight_map=native.weight_map,
            expected=native.expected.float().contiguous().numpy().tobytes(),
        )
        try:
            replace_file(self._path, msgspec.msgpack.encode(stored))
        except OSError as error:
            # It costs the time of the next start.
            log.warning("start_not_recorded", model=str(self._source), why=str(error))
        _remove_oldest(self._path.parent)

    def _stored(self) -> _Stored | None:
        try:
            stored = msgspec.msgpack.decode(self._path.read_bytes(), type=_Stored)
            return stored if stored.fingerprint == _fingerprint(self._source) else None
        except (OSError, msgspec.DecodeError):
            return None


def tensors_of(folder: Path) -> Callable[[str], Tensor]:
    """Gives the tensors of the folder's safetensors files by name, read when they are used; KeyError without one."""
    opened: list[Any] = [safe_open(path, framework="pt") for path in sorted(folder.glob("*.safetensors"))]
    files = {name: file for file in opened for name in file.keys()}  # noqa: SIM118 - no mapping, but has `keys`

    def read(name: str) -> Tensor:
        tensor: Tensor = files[name].get_tensor(name)
        return tensor

    return read


def _fingerprint(folder: Path) -> str:
    """Of the model's files, by names, sizes and times, and of the libraries that read them; OSError without files."""
    paths = sorted(path for pattern in _FILES for path in folder.glob(pattern))
    status = [(path.name, path.stat()) for path in paths]
    facts = [f"{name}:{one.st_size}:{one.st_mtime_ns}" for name, one in status]
    facts += [f"{name}:{version(name)}" for name in _LIBRARIES]
    return hashlib.sha256("\0".join([str(_FORMAT), *facts]).encode()).hexdigest()


def _remove_oldest(folder: Path) -> None:
    with suppress(OSError):
        paths = sorted(folder.glob(f"{_PREFIX}*.msgpack"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
        for path in paths[_MAX_RECORDS:]:
            path.unlink(missing_ok=True)
