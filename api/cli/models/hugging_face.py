"""Models of Hugging Face: downloads into its own cache, which other programs share, and what lies there.

`huggingface_hub` loads its parts when they are first used, so that importing it here costs the other commands nothing.
"""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import huggingface_hub
from huggingface_hub import errors

from api.cli.models.resumed_download import DownloadBroken, Report, fetch_files, list_large_files
from api.cli.settings import HuggingFaceSettings
from storage.errors import PlatformError

# ORG/REPO:FILE.gguf
GGUF_OF_REPOSITORY = re.compile(
    r"(?!\.)(?P<repository>[\w.-]{1,96}/[\w.-]{1,96})"
    r":(?P<file>(?![/.])(?!.*\.\./)(?:[\w. -]+/)*[\w. -]+\.gguf)",
    re.ASCII | re.IGNORECASE,
)
# What transformers reads of a repository, and where the licence stands.
_README = "README.md"
_PATTERNS = ["*.json", "*.jinja", "*.txt", "tokenizer.model*", "model*.safetensors", _README]
# Copies of the weights for other programs.
_IGNORED = ["original/*", "onnx/*", "openvino/*", "coreml/*", ".*"]
_LICENCE = re.compile(r"\A---\n(?:.*\n)*?license:\s*(?P<licence>[\w.-]+)\s*\n(?:.*\n)*?---\n")
_README_BYTES = 1 << 16


class HuggingFaceUnavailable(PlatformError):
    """A model of Hugging Face could not be fetched."""

    code = "hugging_face_unavailable"


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedModel:
    """A model in Hugging Face's cache.

    name:   as `--model` takes it: ORG/REPO, or ORG/REPO:FILE.gguf
    source: the snapshot's folder, or the GGUF file
    """

    name: str
    source: Path
    size_bytes: int
    licence: str | None


def pull_large_files(name: str, report: Report) -> None:
    """Fetch the weights of ORG/REPO or ORG/REPO:FILE.gguf that are not in the cache.

    Whatever broke off goes on where it broke, in this command or in the next one. Without a network nothing is done:
    `pull` says why, unless all is there. Raises HuggingFaceUnavailable.
    """
    settings = HuggingFaceSettings()
    repository, file = split(name)
    patterns, ignored = _wanted(file)
    with _explained(repository):
        try:
            files = list_large_files(repository, settings.endpoint, patterns, ignored)
        except (httpx2.TransportError, errors.OfflineModeIsEnabled):
            return
        try:
            fetch_files(files, settings.cache, settings.endpoint, report)
        except DownloadBroken as error:
            raise HuggingFaceUnavailable(error.message) from error


def _wanted(file: str | None) -> tuple[list[str], list[str] | None]:
    """Patterns of the files that a model needs, and of those that it does not need."""
    return (_PATTERNS, _IGNORED) if file is None else ([file, _README], None)


def pull(name: str) -> Path:
    """The source of ORG/REPO or ORG/REPO:FILE.gguf, fetched where it is not in the cache.

    `huggingface_hub` shows the progress. Raises HuggingFaceUnavailable.
    """
    settings = HuggingFaceSettings()
    repository, file = split(name)
    patterns, ignored = _wanted(file)
    with _explained(repository):
        folder = Path(
            huggingface_hub.snapshot_download(
                repository,
                cache_dir=settings.cache,
                endpoint=settings.endpoint,
                allow_patterns=patterns,
                ignore_patterns=ignored,
            )
        )
    if file is None:
        return folder
    if not (folder / file).is_file():
        raise HuggingFaceUnavailable(f"{repository} holds no file {file}")
    return folder / file


def split(name: str) -> tuple[str, str | None]:
    """Repository and GGUF file of a model's name; None where the repository's own weights are meant."""
    match = GGUF_OF_REPOSITORY.fullmatch(name)
    return (name, None) if match is None else (match["repository"], match["file"])


@contextmanager
def _explained(repository: str) -> Iterator[None]:
    """Say in one sentence why a download failed, and what to do."""
    try:
        yield
    except errors.GatedRepoError as error:
        raise HuggingFaceUnavailable(
            f"{repository} is gated: accept its terms on its page, and set HF_TOKEN"
        ) from error
    except errors.RepositoryNotFoundError as error:
        hint = "check the name, or set HF_TOKEN if it is private"
        raise HuggingFaceUnavailable(f"Hugging Face has no model {repository}: {hint}") from error
    except errors.LocalEntryNotFoundError as error:
        hint = "Hugging Face cannot be reached, and the model is not in its cache"
        raise HuggingFaceUnavailable(f"{repository} could not be fetched: {hint}") from error
    except (OSError, ValueError, httpx2.HTTPError) as error:
        raise HuggingFaceUnavailable(f"{repository} could not be fetched: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def find_source(name: str) -> Path | None:
    """The source of a model in the cache; None when it is not there. Costs no scan of the cache."""
    repository, file = split(name)
    snapshots = HuggingFaceSettings().cache / f"models--{repository.replace('/', '--')}" / "snapshots"
    for snapshot in sorted(snapshots.glob("*"), key=lambda folder: folder.stat().st_mtime, reverse=True):
        if file is not None and (snapshot / file).is_file():
            return snapshot / file
        if file is None and _is_whole(snapshot):
            return snapshot
    return None


def _is_whole(snapshot: Path) -> bool:
    """Whether a snapshot holds a configuration and all files of the weights."""
    index = snapshot / "model.safetensors.index.json"
    if index.is_file():
        names = set(json.loads(index.read_bytes())["weight_map"].values())
    else:
        names = {path.name for path in snapshot.glob("model*.safetensors")}
    return bool(names) and all((snapshot / name).is_file() for name in {"config.json", *names})


def list_cached() -> list[CachedModel]:
    """The models in the cache that could be served, by name: folders with safetensors, and each GGUF file."""
    models: dict[str, CachedModel] = {}
    for repository in _repositories():
        # The newest revision last, so that its files win.
        for revision in sorted(repository.revisions, key=lambda one: one.last_modified):
            found = _models_of(repository.repo_id, revision)
            models |= {model.name: model for model in found}
    return sorted(models.values(), key=lambda model: model.name)


def _repositories() -> "list[huggingface_hub.CachedRepoInfo]":
    try:
        scanned = huggingface_hub.scan_cache_dir(HuggingFaceSettings().cache)
    except (errors.CacheNotFound, ValueError):
        return []
    return [repository for repository in scanned.repos if repository.repo_type == "model"]


def _models_of(repository: str, revision: "huggingface_hub.CachedRevisionInfo") -> Iterator[CachedModel]:
    licence = _licence_of(revision.snapshot_path / _README)
    names = {file.file_name for file in revision.files}
    if "config.json" in names and any(name.endswith(".safetensors") for name in names):
        yield CachedModel(
            name=repository, source=revision.snapshot_path, size_bytes=revision.size_on_disk, licence=licence
        )
    for file in revision.files:
        if file.file_name.lower().endswith(".gguf"):
            inside = file.file_path.relative_to(revision.snapshot_path).as_posix()
            yield CachedModel(
                name=f"{repository}:{inside}", source=file.file_path, size_bytes=file.size_on_disk, licence=licence
            )


def _licence_of(readme: Path) -> str | None:
    """The licence in the head of a model's README.

    Metadata as YAML stands there between two lines of dashes.
    """
    if not readme.is_file():
        return None
    with readme.open(encoding="utf-8", errors="replace") as opened:
        match = _LICENCE.match(opened.read(_README_BYTES))
    return None if match is None else match["licence"]


def remove(name: str) -> int:
    """Delete the model from the cache; the bytes that were freed."""
    repository, file = split(name)
    freed_bytes = 0
    for cached in _repositories():
        if cached.repo_id != repository:
            continue
        others = [model for revision in cached.revisions for model in _models_of(repository, revision)]
        if file is None or all(model.name == name for model in others):
            freed_bytes += cached.size_on_disk
            shutil.rmtree(cached.repo_path)
        else:
            freed_bytes += _remove_file(cached, file)
    return freed_bytes


def _remove_file(repository: "huggingface_hub.CachedRepoInfo", file: str) -> int:
    freed_bytes = 0
    for revision in repository.revisions:
        for cached in revision.files:
            if cached.file_path == revision.snapshot_path / file:
                freed_bytes += cached.size_on_disk
                cached.file_path.unlink()
                cached.blob_path.unlink(missing_ok=True)
    return freed_bytes
