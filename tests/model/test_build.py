"""Compiled kernels are loaded only from files that no other user may write, and are compiled once."""

import os
from contextlib import closing
from pathlib import Path

import pytest

from storage.errors import SettingInvalid
from workers.model.native import build
from workers.model.native.build import Build


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of our own that holds a library of these sources, as an earlier start left it."""
    with closing(Build(tmp_path)) as started:
        library = started._library
    library.write_bytes(b"code")
    library.chmod(0o700)
    return tmp_path


def library_in(folder: Path) -> Path:
    (library,) = folder.glob("decoder-*.so")
    return library


def test_a_library_that_only_we_may_write_is_taken(folder: Path) -> None:
    assert Build(folder).wait() == library_in(folder)


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_folder_that_others_may_write_is_refused(folder: Path, mode: int) -> None:
    folder.chmod(mode)

    with pytest.raises(SettingInvalid, match=r"kernel_folder: .* other users may write it"):
        Build(folder)


@pytest.mark.parametrize("mode", [0o770, 0o702])
def test_a_library_that_others_may_write_is_refused(folder: Path, mode: int) -> None:
    library_in(folder).chmod(mode)

    with pytest.raises(SettingInvalid, match=r"decoder-.* other users may write it"):
        Build(folder).wait()


def test_a_folder_of_another_user_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = folder.stat().st_uid
    monkeypatch.setattr(build, "_TRUSTED_OWNERS", frozenset({owner + 1, os.getpid() + 10_000_000}))

    with pytest.raises(SettingInvalid, match=f"it belongs to user {owner}"):
        Build(folder)


@pytest.fixture
def compilations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that gets a line for each call of the compiler, which here writes a few bytes."""
    calls, programs = tmp_path / "calls", tmp_path / "programs"
    programs.mkdir()
    compiler = programs / "g++"
    compiler.write_text(f'#!/bin/sh\necho call >> {calls}\nfor last; do :; done\necho code > "$last"\n')
    compiler.chmod(0o700)
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    return calls


def test_two_workers_at_once_compile_once(compilations: Path, tmp_path: Path) -> None:
    folder = tmp_path / "kernels"
    with closing(Build(folder)) as first, closing(Build(folder)) as second:
        compiled = first.wait()

        assert second.wait() == compiled

    assert compilations.read_text().count("call") == 1


def test_a_worker_compiles_when_the_one_that_did_was_stopped(compilations: Path, tmp_path: Path) -> None:
    folder = tmp_path / "kernels"
    first, second = Build(folder), Build(folder)
    first.close()

    assert second.wait() == library_in(folder)


def test_a_worker_compiles_when_another_failed(compilations: Path, tmp_path: Path) -> None:
    folder, compiler = tmp_path / "kernels", tmp_path / "programs" / "g++"
    usual = compiler.read_text()
    # Size and time of the compiler belong to the library's name, so both stay.
    times = compiler.stat()
    compiler.write_text("#!/bin/sh\nexit 1".ljust(len(usual)))
    os.utime(compiler, ns=(times.st_atime_ns, times.st_mtime_ns))
    first, second = Build(folder), Build(folder)
    assert first.wait() is None
    compiler.write_text(usual)

    assert second.wait() == library_in(folder)
