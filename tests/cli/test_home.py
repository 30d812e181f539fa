"""The home folder: private, held by one supervisor, with a socket that is never too long."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from api.cli.home import Home, HomeInUse, HomeUnusable, is_locked


def mode_of(path: Path) -> int:
    """The permission bits of a file."""
    return stat.S_IMODE(path.stat().st_mode)


def test_a_home_is_made_for_its_user_alone(tmp_path: Path) -> None:
    home = Home(path=tmp_path / "deep" / "home")

    home.create()

    assert [mode_of(folder) for folder in (home.path, home.run, home.logs, home.redis_data)] == [0o700] * 4


def test_a_second_supervisor_is_refused_and_learns_who_holds_the_home(tmp_path: Path) -> None:
    home = Home(path=tmp_path)
    home.create()

    with home.lock():
        assert is_locked(home)
        with pytest.raises(HomeInUse, match=f"process {os.getpid()}"), home.lock():
            pass

    assert not is_locked(home)


def test_a_child_that_inherits_the_lock_holds_it_on(tmp_path: Path) -> None:
    home = Home(path=tmp_path)
    home.create()
    with home.lock() as lock:
        child = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(lock,))

    assert is_locked(home)
    child.communicate(b"\n")
    assert not is_locked(home)


def test_the_pepper_is_made_once_and_stays_private(tmp_path: Path) -> None:
    home = Home(path=tmp_path)

    first = home.ensure_pepper().read_text()

    assert home.ensure_pepper().read_text() == first
    assert len(first) == 64
    assert mode_of(home.pepper_file) == 0o600


def test_a_home_too_deep_for_a_socket_has_its_socket_elsewhere(tmp_path: Path) -> None:
    shallow, deep = Home(path=Path("/home/me/.tokenpost")), Home(path=tmp_path / ("x" * 100))

    deep.create()

    assert shallow.redis_socket == Path("/home/me/.tokenpost/run/redis.sock")
    assert len(os.fsencode(deep.redis_socket)) < 104
    assert not deep.redis_socket.is_relative_to(deep.path)
    assert mode_of(deep.redis_socket.parent) == 0o700
    deep.redis_socket.parent.rmdir()


def test_a_home_that_is_a_file_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(HomeUnusable, match="cannot use"):
        Home(path=tmp_path / "file").create()
