"""A platform as a user starts it: `tokenpost up` in a folder of its own, on a free port."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from typer.testing import CliRunner

from api.cli.main import app
from tests.plain_http import http_client
from tests.ports import free_port
from tests.waiting import wait_until

_START_LIMIT_S = 120.0
_STOP_LIMIT_S = 60.0
# A toy is enough for most tests.
BUNDLED = ("--model", "demo")


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """A running platform; `supervisor` is what `tokenpost up` started."""

    home: Path
    port: int
    supervisor: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        """The supervisor's process id."""
        return self.supervisor.pid

    @property
    def root_url(self) -> str:
        """The address of the API."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        """What an SDK takes as base URL."""
        return f"{self.root_url}/v1"

    @property
    def screen(self) -> str:
        """What it has shown so far."""
        return (self.home / "screen.txt").read_text()

    def command(self, *arguments: str) -> Any:  # Any: the shape is what the test asserts
        """What `tokenpost ARGUMENTS --json` says about this platform; run in this process, which has the imports."""
        left_out = dict.fromkeys(os.environ.keys() - bare_environment().keys())
        done = CliRunner().invoke(app, [*arguments, "--home", str(self.home), "--json"], env=left_out)
        assert done.exit_code == 0, (done.output, done.exception)
        return json.loads(done.stdout)

    def pids_of(self, role: str) -> list[int]:
        """Process ids of everything that runs in this role."""
        return [process["pid"] for process in self.command("ps") if process["role"] == role and process["pid"]]

    def is_ready(self) -> bool:
        """Whether a job would run now."""
        with contextlib.suppress(httpx2.HTTPError), http_client(self.root_url, timeout_s=5.0) as http:
            return http.get("/readyz").status_code == 200
        return False

    def stop(self, number: signal.Signals) -> int:
        """The exit code after a signal, once everything of it is gone."""
        self.supervisor.send_signal(number)
        return self.supervisor.wait(_STOP_LIMIT_S)


def bare_environment() -> dict[str, str]:
    """The environment without settings of whoever runs the tests."""
    return {name: value for name, value in os.environ.items() if not name.startswith("TOKENPOST_")}


@contextlib.contextmanager
def running_platform(
    home: Path, *arguments: str, models: Sequence[str] = BUNDLED, **settings: object
) -> Iterator[Platform]:
    """A platform that is ready; everything of it is gone afterwards.

    models:   options that name models, where `arguments` has none
    settings: TOKENPOST_* by their lower-case names
    """
    environment = bare_environment() | {f"TOKENPOST_{name.upper()}": str(value) for name, value in settings.items()}
    port = free_port()
    if "--model" not in arguments:
        arguments = (*models, *arguments)
    line = [sys.executable, "-m", "api.cli.main", "up", "--home", str(home), "--port", str(port), *arguments]
    home.mkdir(parents=True, exist_ok=True)
    with (home / "screen.txt").open("wb") as screen:
        process = subprocess.Popen(line, stdout=screen, stderr=subprocess.STDOUT, env=environment)
        platform = Platform(home=home, port=port, supervisor=process)
        try:
            wait_until(lambda: _checked(process, home) and platform.is_ready(), _START_LIMIT_S, "a ready platform")
            yield platform
        finally:
            platform.stop(signal.SIGINT)


def _checked(process: subprocess.Popen[bytes], home: Path) -> bool:
    assert process.poll() is None, (home / "screen.txt").read_text()
    return True
