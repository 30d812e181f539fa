"""Fork server: forks a process for each request of the supervisor, from a parent that has imported everything.

The process is forked twice, and the supervisor is the subreaper meanwhile, so that the supervisor becomes its parent.
The supervisor reads its exit status, and the process survives the end of the fork server. Linux only.
"""

import ctypes
import gc
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

import msgspec

# <linux/prctl.h>
_PR_SET_PDEATHSIG = 1
_MAX_REQUEST_BYTES = 4 << 20
_REQUEST_TIMEOUT_S = 10.0
_ADOPTION_TIMEOUT_S = 10.0


class ForkRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A process to fork; the descriptor of its log file comes with it. The client ends the request by a half-close.

    arguments:   command line, the program's name first
    environment: the whole environment
    folder:      working directory
    parent:      pid of the supervisor
    """

    arguments: list[str]
    environment: dict[str, str]
    folder: str
    parent: int


def serve(
    listener: socket.socket,
    run: Callable[[], object],
    before_fork: Callable[[Mapping[str, str]], object] = lambda environment: None,
) -> None:
    """Serve fork requests until a signal ends this process; calls `run` in each forked process and returns there.

    before_fork: called with the environment of the process to fork; imports what it needs and others may need

    Neither it nor the caller may have started a thread: a fork copies the calling thread only.
    """
    while True:
        connection, _ = listener.accept()
        connection.settimeout(_REQUEST_TIMEOUT_S)
        forked = None
        with connection, suppress(OSError, msgspec.DecodeError):
            forked = _answer(connection, before_fork)
        if forked is not None:
            listener.close()
            _enter(*forked)
            run()
            return


def _answer(
    connection: socket.socket, before_fork: Callable[[Mapping[str, str]], object]
) -> tuple[ForkRequest, int] | None:
    """Fork for one request and answer with the pid. Returns request and log descriptor in the forked process."""
    data, descriptors, _, _ = socket.recv_fds(connection, 1 << 16, 1)
    try:
        while (part := connection.recv(1 << 16)) and len(data) < _MAX_REQUEST_BYTES:
            data += part
        request = msgspec.json.decode(data, type=ForkRequest)
        before_fork(request.environment)
        # The forked processes share this memory; a garbage collection would write to every object and copy its page.
        gc.freeze()
        pid = _fork_orphan()
        if pid == 0:
            return request, os.dup(descriptors[0])
        try:
            connection.sendall(str(pid).encode())
        except OSError:
            # The supervisor no longer waits for it.
            os.kill(pid, signal.SIGKILL)
            raise
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    return None


def _fork_orphan() -> int:
    """Fork twice and let the process between end; 0 in the new process, its pid here."""
    readable, writable = os.pipe()
    between = os.fork()
    if between == 0:
        try:
            pid = os.fork()
        except OSError:
            # Must not go on as a second server.
            os._exit(1)
        if pid != 0:
            os.write(writable, str(pid).encode())
            os._exit(0)
        os.close(readable)
        os.close(writable)
        return 0
    os.close(writable)
    try:
        answer = os.read(readable, 32)
    finally:
        os.close(readable)
        os.waitpid(between, 0)
    if not answer:
        raise OSError("the second fork failed")
    return int(answer)


def _enter(request: ForkRequest, log: int) -> None:
    """Give this process the group, output, folder, environment and arguments of the request."""
    os.setpgid(0, 0)
    for stream in (sys.stdout.fileno(), sys.stderr.fileno()):
        os.dup2(log, stream)
    os.close(log)
    _die_with(request.parent)
    os.chdir(request.folder)
    os.environ.clear()
    os.environ.update(request.environment)
    sys.argv = list(request.arguments)


def _die_with(parent: int) -> None:
    """Ask the kernel to kill this process when the supervisor dies; returns once that is its parent."""
    deadline = time.monotonic() + _ADOPTION_TIMEOUT_S
    while os.getppid() != parent:
        # The process between has ended, but the kernel has not yet passed on its children.
        if time.monotonic() > deadline:
            os._exit(1)
        time.sleep(0.001)
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        os._exit(1)
