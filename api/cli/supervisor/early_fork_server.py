"""Starts the fork server of the generation workers before the rest of the command is imported.

Its imports take longer than everything else of a start, so it begins first. What it needs to know of the models comes
with the requests for their workers.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from api.cli.home import Home
from api.cli.settings import inherited_environment
from api.cli.supervisor.child import ChildSpec, Role, Tie
from api.cli.supervisor.fork_client import ForkServer

# Celery reads the name of the pool when it is imported.
ENGINE_POOL = {"CELERY_CUSTOM_WORKER_POOL": "workers.broker.celery_pool:EnginePool"}
# Children write to their logs at once and without colours.
OUTPUT = {"PYTHONUNBUFFERED": "1", "NO_COLOR": "1"}
# After its drain the API closes the streams that are left, and needs a moment to log it.
STOP_SLACK_S = 10.0


@dataclass(slots=True, kw_only=True)
class EarlyForkServer:
    """A fork server that was started before its supervisor.

    spec: for its restarts
    pid:  of its process; None once the supervisor has it
    """

    client: ForkServer
    spec: ChildSpec
    pid: int | None

    def take_pid(self) -> int | None:
        """The pid, which the caller waits for from now on."""
        pid, self.pid = self.pid, None
        return pid


@contextmanager
def early_fork_server(home: Home) -> Iterator[EarlyForkServer | None]:
    """A fork server that imports meanwhile; None where this system has none. Call it while there is one thread."""
    if not ForkServer.is_supported():
        yield None
        return
    client = ForkServer(home.fork_socket)
    spec = fork_server_spec(home, client)
    early = EarlyForkServer(client=client, spec=spec, pid=_start(spec))
    try:
        yield early
    finally:
        client.close()
        if (pid := early.take_pid()) is not None:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def fork_server_spec(home: Home, client: ForkServer) -> ChildSpec:
    """The fork server, on a socket that the supervisor holds."""
    listener = client.listener.fileno()
    return ChildSpec(
        name="fork-server",
        role=Role.FORK_SERVER,
        command=(sys.executable, "-m", "workers.preload", str(listener)),
        environment=inherited_environment() | ENGINE_POOL | OUTPUT,
        folder=home.path,
        log=home.log_file("fork-server"),
        stop_grace_s=STOP_SLACK_S,
        descriptors=(listener,),
    )


def _start(spec: ChildSpec) -> int:
    """The pid of the new process. As `Child` starts it, but without an event loop."""
    command = Tie().command(spec.command)
    with spec.log.open("ab") as log:
        pid = os.fork()
        if pid == 0:
            try:
                os.setpgid(0, 0)
                os.chdir(spec.folder)
                for stream in (1, 2):
                    os.dup2(log.fileno(), stream)
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                for descriptor in spec.descriptors:
                    os.set_inheritable(descriptor, True)
                os.execve(command[0], command, dict(spec.environment))
            finally:
                # Must not go on as a second supervisor.
                os._exit(127)
    return pid
