"""Executes another command that cannot outlive the process which started it.

Run as a script of its own (`python -I -S launcher.py HOW TIE COMMAND...`), so it imports only the standard library.
A supervisor that is killed with SIGKILL cannot stop its children; the kernel, or a watcher on a pipe, does it.
"""

import ctypes
import os
import select
import signal
import sys

# <linux/prctl.h>; the setting survives execve.
_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Bind this process to the life of its starter, then execute the command.

    arguments: `parent PID COMMAND...` binds by the parent-death signal (Linux), PID being the starter's;
               `pipe FD COMMAND...` binds by an inherited pipe whose other end only the starter holds
    """
    how, tie, *command = arguments
    if how == "parent":
        _die_with_parent(int(tie))
    else:
        _die_with_pipe(int(tie))
    os.execvp(command[0], command)


def _die_with_parent(parent: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    # The parent may have died before the call above; then the kernel would never send the signal.
    if os.getppid() != parent:
        os._exit(1)


def _die_with_pipe(lifeline: int) -> None:
    command_pid = os.getpid()
    ended, alive = os.pipe()
    os.set_inheritable(alive, True)
    # Forked twice, so that the watcher is no child of the command.
    if os.fork() == 0:
        if os.fork() == 0:
            os.close(alive)
            _watch(lifeline, ended, command_pid)
        os._exit(0)
    os.wait()
    os.close(ended)
    os.close(lifeline)


def _watch(lifeline: int, ended: int, command_pid: int) -> None:
    """Kill the command when the lifeline closes before the command itself has ended."""
    readable, _, _ = select.select([lifeline, ended], [], [])
    if ended not in readable:
        os.kill(command_pid, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1:])
