"""Where a model's files are: the bundled model, a local folder, a GGUF file, or a Hugging Face id."""

import importlib
import re
from pathlib import Path

import workers.model
from storage.errors import ModelFilesMissing

BUNDLED = "demo"
BUNDLED_FOLDER = Path(workers.model.__path__[0]) / "demo"
_GGUF_ENDING = ".gguf"
_REPOSITORY_FILE = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+):(?P<file>[\w./-]+\.gguf)", re.ASCII)


def source_of(model: str, *, may_download: bool = True) -> str | Path:
    """What transformers is to load: a folder that holds a model, or an id for it to look up and download; a path is
    that of a GGUF file, which is converted first.

    may_download: whether a GGUF file of Hugging Face is fetched where it is not in the cache

    Raises ModelFilesMissing for what is not there or not whole.
    """
    if model == BUNDLED:
        return str(_checked(BUNDLED_FOLDER, "make it with `make demo-model`"))
    path = Path(model).expanduser()
    if path.is_dir():
        return str(_checked(path, "give the folder that holds config.json and the .safetensors files"))
    if path.is_file():
        return path.absolute()
    in_repository = _REPOSITORY_FILE.fullmatch(model)
    if in_repository is not None:
        return _downloaded(in_repository["repository"], in_repository["file"], may_download)
    if model.startswith((".", "/", "~")) or model.count("/") > 1 or model.endswith(_GGUF_ENDING):
        raise ModelFilesMissing(f"There is no file or folder {model}")
    return model


def folder_of(source: str) -> Path | None:
    """The folder of a model's files: a folder as it is, an id's in the cache of Hugging Face; None where it is not."""
    if Path(source).is_dir():
        return Path(source)
    # Imported here because it takes a third of a second and few models need it.
    cached = importlib.import_module("huggingface_hub").try_to_load_from_cache(source, "config.json")
    return Path(cached).parent if isinstance(cached, str) else None


def _downloaded(repository: str, file: str, may_download: bool) -> Path:
    """The file in Hugging Face's own cache, downloaded now if it is not there."""
    try:
        # Imported here because it takes a third of a second and few models need it.
        downloads = importlib.import_module("huggingface_hub")
        return Path(downloads.hf_hub_download(repository, file, local_files_only=not may_download))
    except (OSError, ValueError) as error:
        line = next(iter(str(error).splitlines()), type(error).__name__)
        raise ModelFilesMissing(
            f"{file} of {repository} could not be downloaded ({line}): check the name and the network, or give a local "
            "file"
        ) from error


def _checked(folder: Path, hint: str) -> Path:
    hint = _gguf_hint(folder) or hint
    if not (folder / "config.json").is_file():
        raise ModelFilesMissing(f"There is no config.json in {folder}: {hint}")
    if not any(folder.glob("*.safetensors")):
        raise ModelFilesMissing(f"There are no .safetensors weights in {folder} (no other format is read): {hint}")
    return folder


def _gguf_hint(folder: Path) -> str | None:
    found = next(iter(sorted(folder.glob(f"*{_GGUF_ENDING}"))), None)
    return None if found is None else f"give the GGUF file itself, {found}"
