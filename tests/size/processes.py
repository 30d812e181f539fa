"""API processes as `tokenpost serve` runs them, and how long each takes to start."""

import contextlib
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import psutil

from tests.ports import free_port
from tests.size.client import Client

_START_LIMIT_S = 120.0
_STOP_LIMIT_S = 60.0
_PAUSE_S = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """A process that answers; `started_in_s` passed from its launch to its first answer about readiness."""

    port: int
    pid: int
    started_in_s: float

    def cpu_s(self) -> float:
        """Processor seconds that it has used."""
        times = psutil.Process(self.pid).cpu_times()
        return float(times.user + times.system)


@contextlib.contextmanager
def running_api(
    database_url: str, redis_url: str, *, num_files: int | None = None, **settings: object
) -> Iterator[Api]:
    """An API process; its queues are not bounded unless `settings` (TOKENPOST_*, in lower case) say so.

    num_files: the soft limit of open files that it is started with
    """
    port = free_port()
    given = {
        "database_url": database_url,
        "redis_url": redis_url,
        "port": port,
        "pepper": "a pepper of a size test",
        "log_level": "WARNING",
        "max_queued_per_model": 0,
        "max_queued_per_owner": 0,
        **settings,
    }
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TOKENPOST_")}
    environment |= {f"TOKENPOST_{name.upper()}": str(value) for name, value in given.items()}
    launched = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "api.server.entry_point"], env=environment)
    if num_files is not None:
        hard = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)[1]
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (num_files, hard))
    try:
        _wait_ready(process, port)
        yield Api(port=port, pid=process.pid, started_in_s=time.monotonic() - launched)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(_STOP_LIMIT_S)


def _wait_ready(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + _START_LIMIT_S
    while time.monotonic() < deadline:
        assert process.poll() is None, f"the API ended with {process.returncode}"
        # No worker is there, and none is needed: what is measured is the API's own.
        with contextlib.suppress(OSError), Client(port) as client:
            if client.get("/readyz").json.get("redis") == "ok":
                return
        time.sleep(_PAUSE_S)
    raise AssertionError(f"the API was not ready within {_START_LIMIT_S} s")
