"""The cache of converted GGUF files: each file is converted once for a precision, by one worker at a time."""

import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import structlog
import torch

from storage.errors import ModelFilesMissing
from workers.model.gguf.conversion import convert
from workers.model.gguf.conversion_source import CONVERTER_VERSION, ConversionSource, find_converted
from workers.model.progress import Report

log = structlog.get_logger()


def converted_folder(path: Path, dtype: torch.dtype, cache: Path, report: Report) -> Path:
    """The folder of the converted file, which is converted now where it never was.

    cache: folder of all conversions

    Raises ModelFilesMissing and ModelUnsupported.
    """
    precision = str(dtype).removeprefix("torch.")
    found = find_converted(path, precision, cache)
    if found is not None:
        return found
    cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    before = path.stat()
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    key = _key(before.st_size, digest, precision)
    with _locked(cache / f".{key}.lock"):
        folder = next(iter(cache.glob(f"*-{key}")), None)
        source = ConversionSource(
            path=str(path),
            size_bytes=before.st_size,
            sha256=digest,
            dtype=precision,
            converter=CONVERTER_VERSION,
            versions={package: version(package) for package in ("transformers", "gguf")},
            mtime_ns_by_path={},
        )
        if folder is None:
            folder = _convert(path, cache / f"{_title(path)}-{key}", cache / f".{key}.partial", dtype, report, source)
        else:
            source = ConversionSource.read(folder) or source
        after = path.stat()
        if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
            raise ModelFilesMissing(f"{path} was written while it was read: start again when it is whole")
        source.seen(path, after.st_mtime_ns).write(folder)
    return folder


def _convert(
    path: Path, folder: Path, partial: Path, dtype: torch.dtype, report: Report, source: ConversionSource
) -> Path:
    # What a conversion that was killed left behind; nobody else writes there while the lock is held.
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(mode=0o700)
    try:
        convert(path, partial, dtype, report)
        source.write(partial)
        for file in partial.iterdir():
            _sync(file)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    log.info("model_converted", path=str(path), folder=str(folder))
    return folder


def _sync(file: Path) -> None:
    """Have the file on the disk before the folder gets its name."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _key(size_bytes: int, digest: str, precision: str) -> str:
    facts = f"{size_bytes} {digest} {precision} {CONVERTER_VERSION}"
    return hashlib.sha256(facts.encode()).hexdigest()[:16]


def _title(path: Path) -> str:
    """The file's name, as a part of a folder's name."""
    return re.sub(r"[^\w.-]+", "-", path.name.removesuffix(".gguf"), flags=re.ASCII).lstrip(".-")[:80] or "model"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock; a second worker waits for the first one's conversion."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
