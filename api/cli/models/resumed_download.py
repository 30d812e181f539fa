"""Large files of Hugging Face: a download that broke goes on in the next command, and its SHA-256 is checked.

`huggingface_hub` deletes what an interrupted command has fetched of a file. Here a file arrives in the same cache,
under a name of its own until it is whole; `snapshot_download` then finds it there.
"""

import fcntl
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedRandom
from pathlib import Path

import httpx2
import huggingface_hub
from huggingface_hub.utils import build_hf_headers, filter_repo_objects  # type: ignore[attr-defined]  # not in its `__all__`

from storage.errors import PlatformError

_TIMEOUT_S = 30.0
# Attempts in a row that bring nothing.
_MAX_VAIN_ATTEMPTS = 3
_PARTIAL = ".partial"

# Bytes that have arrived, of all.
Report = Callable[[int, int], None]


class DownloadBroken(PlatformError):
    """A file did not arrive whole, or not as Hugging Face describes it."""

    code = "download_broken"


@dataclass(frozen=True, slots=True, kw_only=True)
class LargeFile:
    """A file that Hugging Face stores by its digest.

    name: its path in the repository
    """

    repository: str
    name: str
    size_bytes: int
    sha256: str

    def blob_in(self, cache: Path) -> Path:
        """Where `huggingface_hub` looks for it."""
        return cache / f"models--{self.repository.replace('/', '--')}" / "blobs" / self.sha256


def list_large_files(
    repository: str, endpoint: str | None, patterns: list[str], ignored: list[str] | None
) -> list[LargeFile]:
    """The large files of a repository that match; raises what `huggingface_hub` raises."""
    tree = huggingface_hub.HfApi(endpoint=endpoint).list_repo_tree(repository, recursive=True)
    stored = {entry.path: entry.lfs for entry in tree if isinstance(entry, huggingface_hub.RepoFile) and entry.lfs}
    wanted = filter_repo_objects(list(stored), allow_patterns=patterns, ignore_patterns=ignored)
    return [
        LargeFile(repository=repository, name=name, size_bytes=stored[name].size, sha256=stored[name].sha256)
        for name in wanted
    ]


def fetch_files(files: Sequence[LargeFile], cache: Path, endpoint: str | None, report: Report) -> None:
    """Fetch the files that are not in the cache, and go on where an earlier command stopped; raises DownloadBroken."""
    missing = [file for file in files if not file.blob_in(cache).is_file()]
    total = sum(file.size_bytes for file in missing)
    before = 0
    for file in missing:
        partial = file.blob_in(cache).with_name(file.sha256 + _PARTIAL)
        partial.parent.mkdir(parents=True, exist_ok=True)
        with _locked(partial) as opened:
            # Another command may have fetched it while this one waited.
            if not file.blob_in(cache).is_file():
                _complete(file, opened, endpoint, _counted(report, before, total))
                partial.rename(file.blob_in(cache))
        partial.unlink(missing_ok=True)
        before += file.size_bytes


def _counted(report: Report, before: int, total: int) -> Callable[[int], None]:
    """Reports of one file, behind others."""
    return lambda done: report(before + done, total)


@contextmanager
def _locked(partial: Path) -> Iterator[BufferedRandom]:
    """The file that holds what has arrived, for one command at a time."""
    with partial.open("a+b") as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield opened


def _complete(file: LargeFile, opened: BufferedRandom, endpoint: str | None, report: Callable[[int], None]) -> None:
    """Append what is missing, and check the whole."""
    vain_attempts = 0
    while (done := opened.seek(0, 2)) < file.size_bytes:
        try:
            _append(file, opened, done, endpoint, report)
            failure = "the answer was too short"
        except httpx2.HTTPError as error:
            failure = str(error) or type(error).__name__
        vain_attempts = 0 if opened.seek(0, 2) > done else vain_attempts + 1
        if vain_attempts == _MAX_VAIN_ATTEMPTS:
            raise DownloadBroken(
                f"{file.name} of {file.repository} broke off after {done / 1e6:.0f} of {file.size_bytes / 1e6:.0f} MB "
                f"({failure}); the same command goes on from there"
            )
    opened.seek(0)
    digest = hashlib.file_digest(opened, "sha256").hexdigest()
    if done != file.size_bytes or digest != file.sha256:
        opened.truncate(0)
        raise DownloadBroken(
            f"{file.name} of {file.repository} arrived with another size or SHA-256 than Hugging Face names; the same "
            "command fetches it again"
        )


def _append(
    file: LargeFile, opened: BufferedRandom, done: int, endpoint: str | None, report: Callable[[int], None]
) -> None:
    """Append what one request brings; raises httpx2.HTTPError."""
    url = huggingface_hub.hf_hub_url(file.repository, file.name, endpoint=endpoint)
    # Compressed bytes could not be counted.
    headers = build_hf_headers() | {"Range": f"bytes={done}-", "Accept-Encoding": "identity"}
    with (
        httpx2.Client(follow_redirects=True, timeout=_TIMEOUT_S) as client,
        client.stream("GET", url, headers=headers) as response,
    ):
        response.raise_for_status()
        if response.status_code != httpx2.codes.PARTIAL_CONTENT:
            # The server knows no ranges: it sends the file from its beginning.
            opened.truncate(0)
            done = 0
        # As it arrives: of a chunk of a given size a broken connection would lose the begin.
        for chunk in response.iter_raw():
            opened.write(chunk)
            done += len(chunk)
            report(done)
            if done > file.size_bytes:
                return
