"""One supervised process: start, restart with backoff, and stop."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from api.cli.state import ProcessState
from api.cli.supervisor.fork_client import ForkedProcess, ForkServer
from storage import ids

_LAUNCHER = Path(__file__).with_name("launcher.py")
# After so long a run the restart backoff is reset.
_STABLE_AFTER_S = 30.0
# On a machine without a GPU the other processes take CPU time from the model's threads in each step. A slightly lower
# priority lets them take less at once (decision 0022).
_NICENESS = 3


class Role(StrEnum):
    """The role of a platform process."""

    REDIS = "redis"
    API = "api"
    CPU_WORKER = "cpu worker"
    GENERATION_WORKER = "generation worker"
    FORK_SERVER = "fork server"


class ChildState(StrEnum):
    """State of a supervised process."""

    RUNNING = "running"
    WAITING = "waiting"
    STOPPING = "stopping"
    STOPPED = "stopped"


# Forked workers inherit the priority of their fork server.
_NORMAL_PRIORITY = (Role.GENERATION_WORKER, Role.FORK_SERVER)

# A started or a forked process.
Process = asyncio.subprocess.Process | ForkedProcess


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSpec:
    """A process to run.

    name:         unique among the children; its log file is named after it
    model:        the model id that a generation worker serves
    environment:  the whole environment; a worker's fresh TOKENPOST_WORKER_ID is added at each start
    folder:       its working directory: not the user's, whose modules could shadow ours
    descriptors:  file descriptors that it inherits
    stop_grace_s: time from SIGTERM to SIGKILL
    """

    name: str
    role: Role
    command: tuple[str, ...]
    environment: Mapping[str, str]
    folder: Path
    log: Path
    stop_grace_s: float
    model: str | None = None
    descriptors: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A process ended without being stopped by the supervisor.

    code:    exit status; the negated signal number when a signal ended it
    retry_s: time until it is started again
    """

    spec: ChildSpec
    worker_id: str | None
    code: int
    retry_s: float

    @property
    def reason(self) -> str:
        """The reason for people: `exit code 1`, `SIGKILL`."""
        return signal.Signals(-self.code).name if self.code < 0 else f"exit code {self.code}"


def backoffs() -> Iterator[float]:
    """Restart backoff in seconds: doubling from a half to thirty."""
    wait_s = 0.5
    while True:
        yield wait_s
        wait_s = min(wait_s * 2, 30.0)


class Tie:
    """Ends children when this process dies: by the parent-death signal on Linux, by a pipe elsewhere."""

    def __init__(self, *, by_pipe: bool = sys.platform != "linux") -> None:
        self._pipe = os.pipe() if by_pipe else None

    def command(self, command: tuple[str, ...]) -> list[str]:
        """The command line that runs `command` and kills it when this process dies."""
        how = ("pipe", str(self._pipe[0])) if self._pipe else ("parent", str(os.getpid()))
        return [sys.executable, "-I", "-S", str(_LAUNCHER), *how, *command]

    @property
    def descriptors(self) -> tuple[int, ...]:
        """Descriptors that a child must inherit besides its own."""
        return self._pipe[:1] if self._pipe else ()


@dataclass(slots=True, kw_only=True)
class Child:
    """Keeps one process running until `stop` is called. Lives on one event loop in the main thread.

    since:       Unix time of the last change of state
    restarts:    starts after the first
    fork_server: what forks it; None starts it as a process of its own
    started_pid: a process that runs already and is the first one; None starts it
    """

    spec: ChildSpec
    tie: Tie
    on_ended: Callable[[Ended], None]
    on_change: Callable[[], None]
    fork_server: ForkServer | None = None
    started_pid: int | None = None
    state: ChildState = ChildState.WAITING
    since: float = 0.0
    restarts: int = -1
    pid: int | None = None
    worker_id: str | None = None
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _kill: asyncio.Event = field(default_factory=asyncio.Event)

    async def keep(self) -> None:
        """Start and restart the process, with backoff; returns once `stop` was called and the process has ended."""
        pauses = backoffs()
        while not self._stop.is_set():
            process = await self._start()
            if process is None:
                break
            started = time.monotonic()
            if await _first(process.wait(), self._stop.wait()) == 1:
                await self._end(process)
            if self._stop.is_set():
                break
            if time.monotonic() - started > _STABLE_AFTER_S:
                pauses = backoffs()
            retry_s = next(pauses)
            self._change(ChildState.WAITING)
            self.on_ended(
                Ended(spec=self.spec, worker_id=self.worker_id, code=process.returncode or 0, retry_s=retry_s)
            )
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), retry_s)
        self._change(ChildState.STOPPED)

    def stop(self) -> None:
        """Stop the process: SIGTERM, and SIGKILL after its grace."""
        self._stop.set()

    def kill(self) -> None:
        """Stop without the rest of the grace."""
        self._stop.set()
        self._kill.set()

    async def _start(self) -> Process | None:
        """The new process; None when the child was stopped meanwhile."""
        started_pid, self.started_pid = self.started_pid, None
        process = await self._launch() if started_pid is None else ForkedProcess(started_pid)
        if process is None:
            return None
        if self.spec.role not in _NORMAL_PRIORITY:
            _lower_priority(process.pid)
        self.pid = process.pid
        self.restarts += 1
        self._change(ChildState.RUNNING)
        return process

    async def _launch(self) -> Process | None:
        environment = dict(self.spec.environment)
        if self.spec.role in (Role.CPU_WORKER, Role.GENERATION_WORKER):
            # A new id for each start: jobs of the process that died must not look like this one's.
            self.worker_id = environment["TOKENPOST_WORKER_ID"] = ids.new_id("wrk_")
        with self.spec.log.open("ab") as log:
            process = None
            if self.fork_server is not None:
                process = await self._fork(self.fork_server, environment, log.fileno())
            if process is None:
                if self._stop.is_set():
                    return None
                process = await self._execute(environment, log.fileno())
        return process

    async def _fork(self, fork_server: ForkServer, environment: Mapping[str, str], log: int) -> Process | None:
        """The forked process; None when the child was stopped meanwhile, or the fork server does not work."""
        # Its command is `python -m celery ...`; the fork server is that Python already.
        arguments = list(self.spec.command[2:])
        forking = asyncio.create_task(fork_server.fork(arguments, environment, self.spec.folder, log))
        stopped = asyncio.create_task(self._stop.wait())
        await asyncio.wait((forking, stopped), return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not forking.done():
            forking.cancel()
        try:
            return await forking
        except (OSError, TimeoutError, asyncio.CancelledError):
            return None

    async def _execute(self, environment: Mapping[str, str], log: int) -> Process:
        # A process group of its own: Ctrl-C in the terminal must reach only the supervisor, which stops in order.
        # Not a session: Linux schedules sessions alike, and niceness counts only within one (decision 0022).
        return await asyncio.create_subprocess_exec(
            *self.tie.command(self.spec.command),
            stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
            env=environment, cwd=self.spec.folder,
            process_group=0, pass_fds=(*self.spec.descriptors, *self.tie.descriptors),
        )  # fmt: skip

    async def _end(self, process: Process) -> None:
        self._change(ChildState.STOPPING)
        _signal(process.pid, signal.SIGTERM)
        if await _first(process.wait(), self._kill.wait(), asyncio.sleep(self.spec.stop_grace_s)) != 0:
            _signal(process.pid, signal.SIGKILL, whole_group=True)
            await process.wait()

    def _change(self, state: ChildState) -> None:
        self.state, self.since = state, time.time()
        if state in (ChildState.WAITING, ChildState.STOPPED):
            self.pid = None
        self.on_change()


def _lower_priority(pid: int) -> None:
    """Raise the niceness of a process above that of generation workers, before it starts threads."""
    with suppress(ProcessLookupError):
        os.setpriority(os.PRIO_PROCESS, pid, min(os.getpriority(os.PRIO_PROCESS, 0) + _NICENESS, 19))


def _signal(pid: int, number: signal.Signals, *, whole_group: bool = False) -> None:
    with suppress(ProcessLookupError):
        if whole_group:
            # A forked worker has no group of its own in its first moment.
            os.kill(pid, number)
            os.killpg(pid, number)
        else:
            os.kill(pid, number)


async def _first(*waits: Coroutine[object, object, object]) -> int:
    """Index of the awaitable that ended first, the lowest of several; the others are cancelled."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    return next(index for index, task in enumerate(tasks) if task in done)


def process_state(child: Child) -> ProcessState:
    """The child's entry in the state file."""
    return ProcessState(
        role=child.spec.role,
        name=child.spec.name,
        pid=child.pid,
        state=child.state,
        since=child.since,
        restarts=max(child.restarts, 0),
        model=child.spec.model,
        source=child.spec.environment.get("TOKENPOST_MODEL") if child.spec.model is not None else None,
        worker_id=child.worker_id,
        log=str(child.spec.log),
    )
