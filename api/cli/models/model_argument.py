"""The `--model` argument, `[name=]ID_OR_PATH`: parsed and validated before anything starts."""

import importlib.util
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage.errors import PlatformError

BUNDLED_NAME = "demo"
_NAME = re.compile(r"[A-Za-z0-9][\w.:/-]{0,127}", re.ASCII)
# Source: https://huggingface.co/docs/huggingface_hub/package_reference/utilities (validate_repo_id)
_MODEL_ID = re.compile(r"(?:[\w.-]{1,96}/)?[\w.-]{1,96}", re.ASCII)


class ModelArgumentInvalid(PlatformError):
    """An invalid `--model`: a missing folder, or a name that occurs twice."""

    code = "model_argument_invalid"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelArgument:
    """A model to serve: its id in the API, and its source (a Hugging Face id or an absolute path)."""

    name: str
    source: str

    @property
    def is_local(self) -> bool:
        """Whether the source is a folder of this machine."""
        return Path(self.source).is_absolute()


def parse_models(arguments: Sequence[str]) -> list[ModelArgument]:
    """The models to serve, at least one: the bundled one where none is named."""
    models = [_parse(argument) for argument in arguments] or [bundled_model()]
    names = [model.name for model in models]
    for name in names:
        if names.count(name) > 1:
            raise ModelArgumentInvalid(f"two models are named '{name}'; give one another name: --model other={name}")
    return models


def bundled_model() -> ModelArgument:
    """The small model that ships with the platform."""
    # Found without importing the package: `api` must not import `workers`.
    spec = importlib.util.find_spec("workers")
    roots = spec.submodule_search_locations if spec is not None else None
    for root in roots or ():
        folder = Path(root) / "model" / "demo"
        if folder.is_dir():
            return ModelArgument(name=BUNDLED_NAME, source=str(_checked(folder)))
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
    if path.exists() or _is_like_a_path(source):
        folder = _checked(path.absolute())
        return ModelArgument(name=name or _folder_name(folder), source=str(folder))
    return ModelArgument(name=name or source, source=source)


def _is_like_a_path(source: str) -> bool:
    return source.startswith((".", "/", "~")) or not _MODEL_ID.fullmatch(source)


def _folder_name(folder: Path) -> str:
    name = folder.resolve().name
    if not _NAME.fullmatch(name):
        raise ModelArgumentInvalid(f"the folder's name '{name}' cannot name a model; give one: --model NAME={folder}")
    return name


def _checked(folder: Path) -> Path:
    """The folder, if it holds a whole model."""
    if not folder.exists():
        raise ModelArgumentInvalid(f"there is no model folder {folder}")
    if not folder.is_dir():
        raise ModelArgumentInvalid(f"{folder} is a file; a model is a folder with config.json and *.safetensors")
    for pattern in ("config.json", "tokenizer.json", "*.safetensors"):
        if not any(folder.glob(pattern)):
            raise ModelArgumentInvalid(f"{folder} is no model folder: it holds no {pattern}")
    for file in sorted(folder.glob("*.safetensors")):
        if not _is_whole(file):
            raise ModelArgumentInvalid(f"{file} is no whole safetensors file; fetch it again (a Git LFS pointer?)")
    return folder


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
