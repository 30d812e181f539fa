"""Processes that the drill starts and may hurt; nothing else is ever signalled."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil

from tests import services
from tests.e2e.platform import bare_environment

ROOT = Path(__file__).parents[2]
_STOP_LIMIT_S = 45.0


class NotOurs(Exception):
    """A process that this drill did not start."""


class Part:
    """One process with its command line, which can be ended and started again."""

    def __init__(self, name: str, command: list[str], environment: Mapping[str, str], folder: Path) -> None:
        self.name = name
        self.log = folder / f"{name}.txt"
        self._command = command
        self._environment = dict(environment)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self.process is not None
        return self.process.pid

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Start it; return at once."""
        assert not self.is_running
        with self.log.open("ab") as log:
            self.process = services.launch(self._command, stdout=log, stderr=log, env=self._environment, cwd=str(ROOT))

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it still runs."""
        if self.process is not None:
            self.process.send_signal(number)

    def kill(self) -> None:
        """End it at once; return when it is gone."""
        self.send(signal.SIGKILL)
        if self.process is not None:
            self.process.wait(_STOP_LIMIT_S)

    def stop(self) -> None:
        """End it in its own way, or not."""
        self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)
        if self.process is not None:
            try:
                self.process.wait(_STOP_LIMIT_S)
            except subprocess.TimeoutExpired:
                self.kill()


def cli(*arguments: str) -> list[str]:
    """A command of the platform's command line."""
    return [sys.executable, "-m", "api.cli.main", *arguments]


def environment(settings: Mapping[str, object], *, injection: str = "") -> dict[str, str]:
    """The environment of a part: TOKENPOST_* by lower-case names, and this tree's packages.

    injection: a folder whose `sitecustomize` is run first
    """
    path = [injection] if injection else []
    path += [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH", "")])]
    reported = {f"TOKENPOST_{name.upper()}": str(value) for name, value in settings.items()}
    # Many processes share few cores: threads that spin take them from each other.
    return bare_environment() | {"OMP_WAIT_POLICY": "passive", "PYTHONPATH": os.pathsep.join(path)} | reported


def signal_ours(pid: int, number: signal.Signals) -> None:
    """Signal a process that descends from this one; NotOurs for any other, and for one that is gone."""
    try:
        process = psutil.Process(pid)
        if os.getpid() not in {parent.pid for parent in process.parents()}:
            raise NotOurs(f"process {pid} was not started by this drill")
        process.send_signal(number)
    except psutil.NoSuchProcess as error:
        raise NotOurs(f"process {pid} is gone") from error
