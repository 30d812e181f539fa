"""The `--model` argument, `[name=]MODEL`: parsed and validated before anything starts."""

import importlib.util
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from api.cli.models.hugging_face import GGUF_OF_REPOSITORY
from api.cli.models.packages import PACKAGES
from storage.errors import PlatformError

BUNDLED_NAME = "demo"
DEFAULT_NAME = "smollm2"
_NAME = re.compile(r"[A-Za-z0-9][\w.:/-]{0,127}", re.ASCII)
# Source: https://huggingface.co/docs/huggingface_hub/package_reference/utilities (validate_repo_id)
_MODEL_ID = re.compile(r"(?:[\w.-]{1,96}/)?[\w.-]{1,96}", re.ASCII)
_GGUF_SUFFIX = ".gguf"
# Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (the first four bytes)
_GGUF_MAGIC = b"GGUF"


class ModelArgumentInvalid(PlatformError):
    """An invalid `--model`: a missing file or folder, or a name that occurs twice."""

    code = "model_argument_invalid"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelArgument:
    """A model to serve.

    name:       its id in the API
    source:     an absolute path of a folder or a GGUF file, a package's name, ORG/REPO:FILE.gguf, or a Hugging Face id
    is_default: whether nobody asked for it, so that the bundled model may stand in
    """

    name: str
    source: str
    is_default: bool = False

    @property
    def is_local(self) -> bool:
        """Whether the source is a path of this machine."""
        return Path(self.source).is_absolute()


def parse_models(arguments: Sequence[str]) -> list[ModelArgument]:
    """The models to serve, at least one: the default one where none is named."""
    models = [_parse(argument) for argument in arguments] or [default_model()]
    names = [model.name for model in models]
    for name in names:
        if names.count(name) > 1:
            raise ModelArgumentInvalid(f"two models are named '{name}'; give one another name: --model other={name}")
    return models


def default_model() -> ModelArgument:
    """The small model of a package that is served where none is named."""
    return ModelArgument(name=DEFAULT_NAME, source=DEFAULT_NAME, is_default=True)


def bundled_model() -> ModelArgument:
    """The toy that ships with the platform."""
    # Found without importing the package: `api` must not import `workers`.
    spec = importlib.util.find_spec("workers")
    roots = spec.submodule_search_locations if spec is not None else None
    for root in roots or ():
        folder = Path(root) / "model" / "demo"
        if folder.is_dir():
            return ModelArgument(name=BUNDLED_NAME, source=str(_checked_folder(folder)))
    raise ModelArgumentInvalid("the bundled model is not in this installation; name one: --model Qwen/Qwen3-0.6B")


def _parse(argument: str) -> ModelArgument:
    name, equals, source = argument.partition("=")
    if not equals or Path(argument).expanduser().exists():
        name, source = "", argument
    elif not _NAME.fullmatch(name):
        raise ModelArgumentInvalid(f"'{name}' cannot name a model: letters, digits and . _ - : / only")
    if source == BUNDLED_NAME:
        return ModelArgument(name=name or BUNDLED_NAME, source=bundled_model().source)
    path = Path(source).expanduser()
    if source in PACKAGES or (not path.exists() and GGUF_OF_REPOSITORY.fullmatch(source)):
        return ModelArgument(name=name or source, source=source)
    if path.exists() or _is_like_a_path(source):
        checked = _checked(path.absolute())
        return ModelArgument(name=name or _name_of(checked), source=str(checked))
    return ModelArgument(name=name or source, source=source)


def _is_like_a_path(source: str) -> bool:
    return (
        source.startswith((".", "/", "~")) or source.lower().endswith(_GGUF_SUFFIX) or not _MODEL_ID.fullmatch(source)
    )


def _name_of(path: Path) -> str:
    """A folder is named after itself, a file without its suffix."""
    name = path.resolve().name if path.is_dir() else path.stem
    if not _NAME.fullmatch(name):
        raise ModelArgumentInvalid(f"the name '{name}' cannot name a model; give one: --model NAME={path}")
    return name


def _checked(path: Path) -> Path:
    """The path, if it is a whole model: a folder, or a GGUF file."""
    if path.is_dir():
        return _checked_folder(path)
    is_gguf = path.name.lower().endswith(_GGUF_SUFFIX)
    if not path.exists():
        raise ModelArgumentInvalid(f"there is no {'model file' if is_gguf else 'model folder'} {path}")
    return _checked_file(path, is_gguf=is_gguf)


def _checked_file(path: Path, *, is_gguf: bool) -> Path:
    try:
        with path.open("rb") as opened:
            magic = opened.read(len(_GGUF_MAGIC))
    except OSError as error:
        raise ModelArgumentInvalid(f"{path} cannot be read: {error.strerror}") from error
    if magic == _GGUF_MAGIC:
        return path
    if is_gguf:
        raise ModelArgumentInvalid(f"{path} does not begin as a GGUF file; fetch it again (a Git LFS pointer?)")
    raise ModelArgumentInvalid(
        f"{path} is no GGUF file; a model is a .gguf file, or a folder with config.json and *.safetensors"
    )


def _checked_folder(folder: Path) -> Path:
    """The folder, if it holds a whole model."""
    for pattern in ("config.json", "tokenizer.json", "*.safetensors"):
        if not any(folder.glob(pattern)):
            hint = _hint_of(folder) if pattern != "tokenizer.json" else ""
            raise ModelArgumentInvalid(f"{folder} is no model folder: it holds no {pattern}{hint}")
    for file in sorted(folder.glob("*.safetensors")):
        if not _is_whole(file):
            raise ModelArgumentInvalid(f"{file} is no whole safetensors file; fetch it again (a Git LFS pointer?)")
    return folder


def _hint_of(folder: Path) -> str:
    """What to do where a folder of GGUF files is named."""
    file = next(iter(sorted(folder.glob(f"*{_GGUF_SUFFIX}"))), None)
    return "" if file is None else f"; name its GGUF file: --model {file}"


def _is_whole(file: Path) -> bool:
    """Whether a safetensors file is as long as its header says.

    Source: https://huggingface.co/docs/safetensors (8 bytes of header length, JSON header, data)
    """
    with file.open("rb") as opened:
        header_bytes = int.from_bytes(opened.read(8), "little")
        if not 2 <= header_bytes < file.stat().st_size:
            return False
        try:
            header: dict[str, dict[str, Any]] = json.loads(
                opened.read(header_bytes)
            )  # Any: free metadata beside tensors
        except ValueError:
            return False
    end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
    return file.stat().st_size == 8 + header_bytes + end
