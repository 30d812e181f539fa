"""Client of the generation workers' fork server (`workers.preload`), and the processes that it forks. Linux only."""

import asyncio
import ctypes
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec

# <linux/prctl.h>
_PR_SET_CHILD_SUBREAPER = 36
_NVIDIA_DRIVER = Path("/dev/nvidiactl")
# A server that was just started imports torch first; a fresh process would take as long.
_FORK_TIMEOUT_S = 180.0


class ForkedProcess:
    """A forked worker: what `asyncio.subprocess.Process` offers of a started one."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._ended = asyncio.Event()
        self._descriptor = os.pidfd_open(pid)
        asyncio.get_running_loop().add_reader(self._descriptor, self._collect)

    async def wait(self) -> int:
        """The exit status once it has ended; the negated signal number when a signal ended it."""
        await self._ended.wait()
        assert self.returncode is not None
        return self.returncode

    def _collect(self) -> None:
        asyncio.get_running_loop().remove_reader(self._descriptor)
        os.close(self._descriptor)
        _, status = os.waitpid(self.pid, 0)
        self.returncode = os.waitstatus_to_exitcode(status)
        self._ended.set()


class ForkServer:
    """Asks the fork server for workers; the listening socket lives as long as the supervisor."""

    def __init__(self, path: Path) -> None:
        """path: of the Unix socket, in a folder of this user alone"""
        path.unlink(missing_ok=True)
        self._path = path
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        self._lock = asyncio.Lock()

    @staticmethod
    def is_supported() -> bool:
        """Whether this system has subreapers and process descriptors, and no NVIDIA GPU.

        CUDA does not survive a fork, and whether all imports leave it alone was never tried on a machine with a GPU.
        """
        return sys.platform == "linux" and hasattr(os, "pidfd_open") and not _NVIDIA_DRIVER.exists()

    def close(self) -> None:
        """Close and remove the socket."""
        self.listener.close()
        self._path.unlink(missing_ok=True)

    async def fork(self, arguments: list[str], environment: Mapping[str, str], folder: Path, log: int) -> ForkedProcess:
        """A worker with this command line and environment; OSError or TimeoutError when the server forks none."""
        request = {"arguments": arguments, "environment": environment, "folder": str(folder), "parent": os.getpid()}
        loop = asyncio.get_running_loop()
        async with self._lock, asyncio.timeout(_FORK_TIMEOUT_S):
            with socket.socket(socket.AF_UNIX) as connection, _subreaper():
                connection.setblocking(False)
                await loop.sock_connect(connection, str(self._path))
                socket.send_fds(connection, [b" "], [log])
                await loop.sock_sendall(connection, msgspec.json.encode(request))
                connection.shutdown(socket.SHUT_WR)
                reply = await loop.sock_recv(connection, 32)
                if not reply:
                    raise ConnectionResetError("the fork server ended")
                return ForkedProcess(int(reply))


@contextmanager
def _subreaper() -> Iterator[None]:
    """Adopt orphans of this process' descendants during the block."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
    try:
        yield
    finally:
        prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
