"""Celery workers with the fake model as processes of their own."""

import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from subprocess import DEVNULL, Popen

from celery import concurrency
from celery.__main__ import main as run_celery

from storage import ids
from storage.broker.celery_queue import TicketPublisher
from storage.contract import WorkerStatus
from storage.fleet import workers
from tests.forking import ForkedProcess
from tests.waiting import wait_until
from tests.workers.harness import MODEL, Backend

REPOSITORY = Path(__file__).parents[2]
FAKE_APP = "tests.workers.fake_worker_app"
FLAGS = ["-n", "test@here", "--without-gossip", "--without-mingle", "--without-heartbeat"]
WORKER = ("celery", "-q", "-A", FAKE_APP, "worker", "-P", "custom", *FLAGS)
START_S = 30.0


def _work() -> None:
    """What `python -m celery` runs; `workers/preload.py` forks the workers of `tokenpost up` in the same way."""
    # Celery reads this variable when it is imported, which it was before this process was forked.
    concurrency.ALIASES["custom"] = os.environ["CELERY_CUSTOM_WORKER_POOL"]
    sys.argv = list(WORKER)
    run_celery()


class Child:
    """One worker process; `log` is what it wrote so far."""

    def __init__(self, backend: Backend, log: Path, *, command: Sequence[str] = (), **settings: object) -> None:
        """command: of a fresh interpreter; without one, a Celery worker is forked"""
        self.worker_id = ids.new_id("wrk_")
        self._backend = backend
        self._log = log
        environment = {
            "CELERY_CUSTOM_WORKER_POOL": "workers.broker.celery_pool:EnginePool",
            "TOKENPOST_DATABASE_URL": backend.settings.database_url,
            "TOKENPOST_REDIS_URL": backend.settings.redis_url,
            "TOKENPOST_LEASE_S": str(backend.settings.lease_s),
            "TOKENPOST_MODEL": MODEL,
            "TOKENPOST_WORKER_ID": self.worker_id,
        }
        environment |= {f"TOKENPOST_{name.upper()}": str(value) for name, value in settings.items()}
        self.process = _started(command, os.environ | environment, log)

    @property
    def log(self) -> str:
        """What it wrote so far."""
        return self._log.read_text()

    def status(self) -> WorkerStatus | None:
        """What its row says."""
        with self._backend.database.connect() as connection:
            row = workers.find(connection, self.worker_id)
        return None if row is None else row.status

    def wait_until_ready(self) -> None:
        """Return when it takes tickets, or nearly so."""
        wait_until(lambda: self.status() is WorkerStatus.READY or self.process.poll() is not None, START_S)
        assert self.process.poll() is None, self.log

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()
        self.process.wait()

    def terminate(self) -> None:
        """Ask it to end."""
        self.process.send_signal(signal.SIGTERM)

    def wait(self, timeout_s: float) -> int:
        """Its exit status."""
        return self.process.wait(timeout_s)


def _started(command: Sequence[str], environment: Mapping[str, str], log: Path) -> ForkedProcess | Popen[bytes]:
    if not command:
        return ForkedProcess(_work, folder=REPOSITORY, environment=environment, stdout=log, stderr=log)
    with log.open("ab") as output:
        line = [sys.executable, "-m", *command]
        return Popen(line, cwd=REPOSITORY, env=environment, stdin=DEVNULL, stdout=output, stderr=output)


def events_of(log: str) -> list[str]:
    """The events of a log in JSON: each of its lines is an object."""
    return [json.loads(line)["event"] for line in log.splitlines()]


@contextmanager
def started(backend: Backend, folder: Path, **settings: object) -> Iterator[Child]:
    """A worker that is ready; gone at the end. `settings` are TOKENPOST_* by their lower-case names."""
    with starting(backend, folder, **settings) as child:
        child.wait_until_ready()
        yield child


@contextmanager
def starting(backend: Backend, folder: Path, *, command: Sequence[str] = (), **settings: object) -> Iterator[Child]:
    """A worker that may not be ready yet."""
    child = Child(backend, folder / "worker.log", command=command, **settings)
    try:
        yield child
    finally:
        child.kill()


@contextmanager
def tickets_to(backend: Backend) -> Iterator[TicketPublisher]:
    """A running publisher of tickets."""
    publisher = TicketPublisher(backend.settings.redis_url)
    publisher.start()
    try:
        yield publisher
    finally:
        publisher.stop()
