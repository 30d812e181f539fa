"""Compiles the kernels for this machine, once; the library is kept for the next start."""

import fcntl
import hashlib
import os
import platform
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import structlog

from storage.errors import SettingInvalid
from workers.model.native.instruction_sets import compiler_flags, find_obstacle, processor
from workers.model.resources.memory_options import InstructionSet

_KERNELS = Path(__file__).parent / "kernels"
_SOURCE = _KERNELS / "decoder.cpp"
_COMPILERS = ("g++", "clang++", "c++")
_TIMEOUT_S = 300.0
_LOCK_INTERVAL_S = 0.05
# The same sums in the same order on every run: nothing here lets a compiler reorder arithmetic.
_FLAGS = ("-O3", "-std=c++20", "-shared", "-fPIC", "-pthread")
# Whose code is loaded: that of root and of the user that runs the worker.
_TRUSTED_OWNERS = frozenset({0, os.geteuid()})

log = structlog.get_logger()


class Build:
    """A running or finished compilation, by this process or by another one that needs the same library; close it after
    use.
    """

    def __init__(self, folder: Path | None, instruction_set: InstructionSet = "native") -> None:
        """Start compiling, unless the folder already has the library of these sources for this processor.

        folder: None leaves the library out

        Raises SettingInvalid for a folder or a library in it that other users may write, and for an instruction set
        that this processor has not.
        """
        if obstacle := find_obstacle(instruction_set):
            raise SettingInvalid(f"instruction_set: {instruction_set} cannot be used: {obstacle}")
        self._folder = folder
        self._flags = (*_FLAGS, *compiler_flags(instruction_set))
        self._obstacle = ""
        self._process: subprocess.Popen[str] | None = None
        self._lock: BinaryIO | None = None
        self._is_locked = False
        self._fresh: Path
        if folder is not None:
            self._prepare(folder)

    def wait(self) -> Path | None:
        """The library; None if it is not wanted, there is no compiler, or the compilation failed, which is logged."""
        if self._lock is not None and not self._is_locked:
            self._await_other(self._lock)
        if self._process is not None:
            self._finish(self._process)
        self._unlock()
        if self._folder is not None and not self._obstacle:
            _check_owner(self._library)
        if self._obstacle:
            log.warning("native_unavailable", reason=self._obstacle)
        return None if self._folder is None or self._obstacle else self._library

    def close(self) -> None:
        """Stop a compilation whose result is not needed."""
        if self._process is not None:
            _kill(self._process)
            self._process.communicate()
            shutil.rmtree(self._fresh.parent, ignore_errors=True)
        self._unlock()

    def _prepare(self, folder: Path) -> None:
        if folder.exists():
            _check_owner(folder)
        compiler = next(filter(None, map(shutil.which, _COMPILERS)), None)
        if compiler is None:
            self._obstacle = f"none of {', '.join(_COMPILERS)} is installed"
            return
        self._compiler = compiler
        self._library = folder / f"decoder-{_digest(compiler, self._flags)}.so"
        if self._library.is_file():
            return
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            # The kernel lets go of the lock when its process dies, so that a killed compilation blocks nobody.
            self._lock = self._library.with_suffix(".lock").open("wb")
            self._is_locked = _has_lock(self._lock)
            if self._is_locked:
                self._start(folder)
        except OSError as error:
            self._obstacle = str(error)

    def _start(self, folder: Path) -> None:
        """Compile, unless another process has just done it. This process holds the lock."""
        if self._library.is_file():
            return
        self._fresh = Path(tempfile.mkdtemp(dir=folder)) / self._library.name
        command = [self._compiler, *self._flags, str(_SOURCE), "-o", str(self._fresh)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            process_group=0,
        )

    def _await_other(self, lock: BinaryIO) -> None:
        """Wait for the process that compiles the library; compile it here when that one failed or was ended."""
        deadline = time.monotonic() + _TIMEOUT_S
        while not _has_lock(lock):
            if time.monotonic() > deadline:
                self._obstacle = "another process did not finish compiling them"
                return
            time.sleep(_LOCK_INTERVAL_S)
        self._is_locked = True
        try:
            self._start(self._library.parent)
        except OSError as error:
            self._obstacle = str(error)

    def _unlock(self) -> None:
        if self._lock is None:
            return
        if self._is_locked:
            # Another process may wait for the removed file while a third one makes a new one. Both compile then, and
            # the second replaces the library of the first by the same.
            Path(self._lock.name).unlink(missing_ok=True)
        self._lock.close()
        self._lock, self._is_locked = None, False

    def _finish(self, process: subprocess.Popen[str]) -> None:
        try:
            output, _ = process.communicate(timeout=_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            _kill(process)
            output, _ = process.communicate()
        if process.returncode == 0:
            self._fresh.chmod(0o700)
            self._fresh.replace(self._library)
        else:
            self._obstacle = f"the compiler failed: {output[-2000:]}"
        shutil.rmtree(self._fresh.parent, ignore_errors=True)
        self._process = None


def _has_lock(lock: BinaryIO) -> bool:
    """Take the lock on an open file, if nobody else has it; another call by its holder changes nothing."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _kill(process: "subprocess.Popen[str]") -> None:
    """Kill the compiler with its children: the driver alone would leave the compilation running."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _check_owner(path: Path) -> None:
    """Raises SettingInvalid where another user could have written what is loaded as code."""
    status = path.stat()
    if status.st_uid not in _TRUSTED_OWNERS:
        owner = f"it belongs to user {status.st_uid}, and must belong to the worker's user or to root"
    elif status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        owner = f"other users may write it (mode {stat.S_IMODE(status.st_mode):o}); run `chmod go-w {path}`"
    else:
        return
    raise SettingInvalid(f"kernel_folder: {path} holds compiled code and is not loaded: {owner}")


def _digest(compiler: str, flags: tuple[str, ...]) -> str:
    """Digest of everything that the library depends on: sources, flags, compiler, processor."""
    sources = [path.read_bytes() for path in sorted(_KERNELS.iterdir()) if path.suffix in (".h", ".cpp")]
    facts = [*flags, compiler, _stamp(compiler), platform.machine(), processor()]
    return hashlib.sha256(b"\0".join([*sources, *(fact.encode() for fact in facts)])).hexdigest()[:20]


def _stamp(compiler: str) -> str:
    """Size and time of the compiler's file, which change with its version."""
    status = Path(compiler).resolve().stat()
    return f"{status.st_size}:{status.st_mtime_ns}"
