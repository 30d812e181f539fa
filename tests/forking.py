"""Processes forked from one that has done the slow imports: each saves seconds of CPU of a fresh interpreter."""

import multiprocessing
import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.services import die_with_parent

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "celery.__main__",
        "celery.apps.worker",
        "celery.bin.celery",
        "openai",
        "tests.workers.harness",
        "workers.broker.celery_pool",
        "workers.broker.consumer",
        "workers.generation.worker_app",
    ]
)


class ForkedProcess:
    """A process that runs a function; the methods are those of `subprocess.Popen`."""

    def __init__(
        self,
        run: Callable[..., object],
        *arguments: object,
        folder: Path,
        environment: Mapping[str, str],
        stdout: Path,
        stderr: Path,
    ) -> None:
        """folder, environment, stdout, stderr: of the process; it appends to the files"""
        entered = (run, arguments, folder, dict(environment), stdout, stderr)
        self._process = _CONTEXT.Process(target=_enter, args=entered)
        self._process.start()

    def poll(self) -> int | None:
        """The exit status, once it has ended."""
        return self._process.exitcode

    def wait(self, timeout_s: float | None = None) -> int:
        """The exit status, when it has ended."""
        self._process.join(timeout_s)
        code = self._process.exitcode
        if code is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout_s or 0.0)
        return code

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None and self._process.pid is not None:
            os.kill(self._process.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()


def _enter(
    run: Callable[..., object],
    arguments: tuple[object, ...],
    folder: Path,
    environment: Mapping[str, str],
    stdout: Path,
    stderr: Path,
) -> None:
    die_with_parent()
    for descriptor, path in ((1, stdout), (2, stderr)):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    run(*arguments)
