"""The models on this machine: pulled from packages, in Hugging Face's cache, bundled, and converted GGUF files."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from api.cli.models import hugging_face
from api.cli.models.conversions import Conversion, list_conversions, size_of
from api.cli.models.model_argument import ModelArgumentInvalid, bundled_model
from api.cli.models.packages import PACKAGES
from storage.errors import PlatformError

_BUNDLED_LICENCE = "Apache-2.0"


class ModelNotHere(PlatformError):
    """No such model lies on this machine."""

    code = "model_not_here"


class ModelNotRemovable(PlatformError):
    """A model that must stay: it is bundled, or a worker serves it."""

    code = "model_not_removable"


class Origin(StrEnum):
    """Where a model's files come from."""

    BUNDLED = "bundled"
    PACKAGE = "package"
    HUGGING_FACE = "hugging face"
    OWN_FILE = "own file"


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalModel:
    """A model on this machine.

    name:        as `--model` takes it
    source:      a folder or a GGUF file
    size_bytes:  of its files; 0 for a user's own file
    conversions: what workers made of a GGUF file
    """

    name: str
    source: Path
    origin: Origin
    size_bytes: int
    licence: str | None
    conversions: tuple[Conversion, ...] = ()

    @property
    def total_bytes(self) -> int:
        """Its files, and what they were converted into."""
        return self.size_bytes + sum(conversion.size_bytes for conversion in self.conversions)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFolder:
    """The folder of pulled and converted models."""

    path: Path

    @property
    def files(self) -> Path:
        """Pulled models, a folder each."""
        return self.path / "files"

    @property
    def converted(self) -> Path:
        """What workers converted GGUF files into."""
        return self.path / "converted"


def list_local(folder: ModelFolder) -> list[LocalModel]:
    """Every model on this machine, by name."""
    conversions = list_conversions(folder.converted)
    models = [*_bundled(), *_packaged(folder, conversions), *_cached(conversions)]
    known = {model.source for model in models}
    of_others = [conversion for conversion in conversions if not known & set(conversion.paths)]
    return sorted([*models, *_own_files(of_others)], key=lambda model: model.name)


def get_local(folder: ModelFolder, name: str) -> LocalModel:
    """The model of that name; ModelNotHere when there is none."""
    path = Path(name).expanduser().absolute()
    for model in list_local(folder):
        if model.name == name or model.source == path:
            return model
    raise ModelNotHere(f"no model '{name}' lies on this machine; `tokenpost models list` shows those that do")


def _bundled() -> list[LocalModel]:
    try:
        source = Path(bundled_model().source)
    except ModelArgumentInvalid:
        return []
    model = LocalModel(
        name="demo",
        source=source,
        origin=Origin.BUNDLED,
        size_bytes=size_of(source),
        licence=_BUNDLED_LICENCE,
    )
    return [model]


def _packaged(folder: ModelFolder, conversions: Sequence[Conversion]) -> list[LocalModel]:
    return [
        LocalModel(
            name=package.name,
            source=(source := package.source_in(folder.files)),
            origin=Origin.PACKAGE,
            size_bytes=package.size_bytes,
            licence=package.licence,
            conversions=_of(source, conversions),
        )
        for package in PACKAGES.values()
        if package.is_whole_in(folder.files)
    ]


def _cached(conversions: Sequence[Conversion]) -> list[LocalModel]:
    return [
        LocalModel(
            name=model.name,
            source=model.source,
            origin=Origin.HUGGING_FACE,
            size_bytes=model.size_bytes,
            licence=model.licence,
            conversions=_of(model.source, conversions),
        )
        for model in hugging_face.list_cached()
    ]


def _own_files(conversions: Sequence[Conversion]) -> list[LocalModel]:
    """GGUF files that users gave by their paths: only their conversions are ours."""
    return [
        LocalModel(
            name=str(path),
            source=path,
            origin=Origin.OWN_FILE,
            size_bytes=0,
            licence=None,
            conversions=tuple(conversion for conversion in conversions if conversion.paths[0] == path),
        )
        for path in dict.fromkeys(conversion.paths[0] for conversion in conversions)
    ]


def _of(source: Path, conversions: Sequence[Conversion]) -> tuple[Conversion, ...]:
    return tuple(conversion for conversion in conversions if conversion.is_of(source))


def remove(folder: ModelFolder, model: LocalModel) -> int:
    """Delete the model's files and conversions; the bytes that were freed. A user's own file stays."""
    if model.origin is Origin.BUNDLED:
        raise ModelNotRemovable(f"{model.name} is a part of the installation")
    freed_bytes = 0
    for conversion in model.conversions:
        shutil.rmtree(conversion.folder)
        freed_bytes += conversion.size_bytes
    if model.origin is Origin.PACKAGE:
        shutil.rmtree(folder.files / model.name)
        freed_bytes += model.size_bytes
    elif model.origin is Origin.HUGGING_FACE:
        freed_bytes += hugging_face.remove(model.name)
    return freed_bytes
