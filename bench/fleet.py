"""Tokens relayed a second by 4 API processes and 4 generation workers, beside one of each: `python -m bench.fleet`.

Real processes over PostgreSQL and Redis; fake engines of 5 ms a step. Each worker always runs a fixed number of
streams, spread over the API processes. All processes and the client share this machine, whose processors are the only
limit: the number of streams is chosen so that one of each uses well under a quarter of them. It gives up after 75 s.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import httpx2
import psutil
import uvloop
from rich.console import Console
from rich.table import Table

from storage.contract import WorkerStatus
from storage.database.migration import migrate
from tests.fakes import prompt
from tests.ports import free_port
from tests.services import launch, running_postgres, running_redis
from tests.waiting import wait_until
from tests.workers.children import FLAGS, Child
from tests.workers.harness import MODEL, Backend

TARGET = 3.0
SIZE = 4
NUM_TOKENS = 1000
_WORKER = ("celery", "-q", "-A", "bench.fleet_worker_app", "worker", "-P", "custom", *FLAGS)
_LIMIT_S = 75
_START_LIMIT_S = 60.0
_WARM_UP_S = 2.0
_CHUNK = b'"text":"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """What one size of the fleet did.

    size:      API processes, and workers
    rate:      tokens relayed a second
    shares:    CPU time of the API processes, the workers, PostgreSQL with Redis, and the client, of all processors
    machine:   CPU time of everything on this machine, of all processors
    """

    size: int
    rate: float
    shares: tuple[float, float, float, float]
    machine: float


class Streams(asyncio.Protocol):
    """A connection that asks for one stream after another and counts the chunks of text."""

    def __init__(self, request: bytes, counter: "Counter") -> None:
        self._request = request
        self._counter = counter
        self._tail = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast: uvloop's transports have the methods of asyncio.Transport but do not descend from it.
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if data.startswith(b"HTTP/1.1 ") and not data.startswith(b"HTTP/1.1 200"):
            self._counter.refused.append(data[:300])
        seen = self._tail + data
        self._counter.num_tokens += seen.count(_CHUNK) - self._tail.count(_CHUNK)
        if b"data: [DONE]" in seen:
            self._tail = b""
            self._transport.write(self._request)
        else:
            # Shorter than the mark of the end, which may come in two parts.
            self._tail = seen[-11:]


class Counter:
    """Tokens that arrived on all connections, and answers that are no streams."""

    def __init__(self) -> None:
        self.num_tokens = 0
        self.refused: list[bytes] = []


def request_of(index: int) -> bytes:
    """A streamed completion of NUM_TOKENS tokens."""
    fields = {"model": MODEL, "prompt": prompt(NUM_TOKENS, salt=index), "max_tokens": NUM_TOKENS + 10, "stream": True}
    body = json.dumps(fields | {"seed": 11}).encode()
    head = b"POST /v1/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    return head + b"content-length: %d\r\n\r\n%b" % (len(body), body)


class Fleet:
    """API processes and workers that this bench started."""

    def __init__(self, backend: Backend, folder: Path, num_streams: int, step_s: float) -> None:
        self._backend = backend
        self._folder = folder
        # The fake engine runs every job that its worker holds.
        self._worker_settings = {"max_running": num_streams - 1, "lookahead": 1, "fake_step_s": step_s}
        self.num_streams = num_streams
        self.ports: list[int] = []
        self._workers: list[Child] = []
        self._apis: list[subprocess.Popen[bytes]] = []

    def grow(self, size: int) -> None:
        """Return when so many API processes and workers are ready."""
        while len(self.ports) < size:
            index = len(self.ports)
            log = self._folder / f"worker-{index}.log"
            self._workers.append(Child(self._backend, log, command=_WORKER, **self._worker_settings))
            self.ports.append(free_port())
            settings = {
                "TOKENPOST_DATABASE_URL": self._backend.settings.database_url,
                "TOKENPOST_REDIS_URL": self._backend.settings.redis_url,
                "TOKENPOST_LEASE_S": str(self._backend.settings.lease_s),
                "TOKENPOST_PORT": str(self.ports[-1]),
                "TOKENPOST_PEPPER": "a pepper of the fleet bench",
                "TOKENPOST_LOG_LEVEL": "WARNING",
            }
            command = [sys.executable, "-m", "api.server.entry_point"]
            self._apis.append(launch(command, env=os.environ | settings))
        for worker in self._workers:
            wait_until(lambda worker=worker: worker.status() is WorkerStatus.READY, _START_LIMIT_S, "a worker")  # type: ignore[misc]  # mypy cannot infer a lambda's defaults
        for port in self.ports:
            wait_until(lambda port=port: _is_ready(port), _START_LIMIT_S, f"the API at {port}")  # type: ignore[misc]  # mypy cannot infer a lambda's defaults

    @property
    def pids(self) -> tuple[list[int], list[int]]:
        """Its API processes and its workers."""
        return [one.pid for one in self._apis], [one.process.pid for one in self._workers]

    def stop(self) -> None:
        """End every process."""
        for api in self._apis:
            api.kill()
            api.wait()
        for worker in self._workers:
            worker.kill()


async def measure(fleet: Fleet, window_s: float, servers: list[int]) -> Figure:
    """Tokens a second in the window, while every worker runs its streams.

    servers: processes whose CPU time counts too, with that of their children
    """
    loop, counter, size = asyncio.get_running_loop(), Counter(), len(fleet.ports)
    connections = []
    for index in range(size * fleet.num_streams):
        port = fleet.ports[index % size]
        transport, _ = await loop.create_connection(lambda i=index: Streams(request_of(i), counter), "127.0.0.1", port)  # type: ignore[misc]  # mypy cannot infer a lambda's defaults
        connections.append(transport)
    await asyncio.sleep(_WARM_UP_S)
    groups = [*fleet.pids, servers, [os.getpid()]]
    psutil.cpu_percent()
    num_before, cpu_before, began = counter.num_tokens, [cpu_s(pids) for pids in groups], time.monotonic()
    await asyncio.sleep(window_s)
    took_s = time.monotonic() - began
    machine = psutil.cpu_percent() / 100
    num_tokens = counter.num_tokens - num_before
    available_s = took_s * (os.cpu_count() or 1)
    apis, workers, others, client = (
        (cpu_s(pids) - before) / available_s for pids, before in zip(groups, cpu_before, strict=True)
    )
    for transport in connections:
        transport.close()
    if counter.refused:
        raise SystemExit(f"refused: {counter.refused[0]!r}")
    shares = (apis, workers, others, client)
    return Figure(size=size, rate=num_tokens / took_s, shares=shares, machine=machine)


def cpu_s(pids: list[int]) -> float:
    """Processor seconds of the processes and their children so far."""
    total = 0.0
    for pid in pids:
        own = psutil.Process(pid)
        for process in [own] if pid == os.getpid() else [own, *own.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                total += sum(process.cpu_times()[:2])
    return total


def _is_ready(port: int) -> bool:
    with contextlib.suppress(httpx2.HTTPError), httpx2.Client(trust_env=False) as client:
        models = client.get(f"http://127.0.0.1:{port}/v1/models").json()["data"]
        return any(model["id"] == MODEL for model in models)
    return False


@contextlib.contextmanager
def running_fleet(num_streams: int, step_s: float) -> Iterator[tuple[Fleet, list[int]]]:
    """A fleet without processes yet, and the ids of its database's and its Redis's processes."""
    folder = tempfile.TemporaryDirectory(prefix="tokenpost-bench-")
    with folder as name, running_redis() as redis, running_postgres() as postgres:
        url = postgres.url_of(postgres.create())
        migrate(url)
        servers = [child.pid for child in psutil.Process().children()]
        backend = Backend(url, redis.url, lease_s=30)
        fleet = Fleet(backend, Path(name), num_streams, step_s)
        try:
            yield fleet, servers
        finally:
            fleet.stop()
            backend.close()


def _give_up(number: int, _: object) -> None:
    reason = f"not done within {_LIMIT_S} s: the machine is too busy" if number == signal.SIGALRM else "ended"
    raise SystemExit(reason)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=4, help="streams that each worker runs")
    parser.add_argument("--step-ms", type=float, default=5.0)
    parser.add_argument("--window-s", type=float, default=10.0)
    options = parser.parse_args()
    # The processes that the bench started are ended when it is.
    signal.signal(signal.SIGTERM, _give_up)
    signal.signal(signal.SIGALRM, _give_up)
    signal.alarm(_LIMIT_S)
    figures: list[Figure] = []
    with running_fleet(options.streams, options.step_ms / 1000) as (fleet, servers):
        for size in (1, SIZE):
            fleet.grow(size)
            figures.append(uvloop.run(measure(fleet, options.window_s, servers)))
    signal.alarm(0)
    table = Table(title=f"{options.step_ms} ms a step, {os.cpu_count()} processors; asked: {TARGET} times the tokens")
    headings = ("APIs + workers", "streams", "tokens/s", "CPU: API, worker, stores, client", "ours", "machine", "ratio")
    for heading in headings:
        table.add_column(heading, justify="right")
    for one in figures:
        shares = " ".join(f"{share:.0%}" for share in one.shares)
        cells = [shares, f"{sum(one.shares):.0%}", f"{one.machine:.0%}", f"{one.rate / figures[0].rate:.2f}"]
        table.add_row(f"{one.size} + {one.size}", str(one.size * options.streams), f"{one.rate:,.0f}", *cells)
    Console().print(table)


if __name__ == "__main__":
    main()
