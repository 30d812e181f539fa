"""Compiled kernels are loaded only from files that no other user may write."""

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
