"""How many background jobs one API process accepts a second: each row committed before its 200 leaves.

`python -m bench.accept [--jobs 20000] [--words 36] [--postgres URL]`: POST /v1/responses with a prompt of some words.
No worker runs; Redis only takes the tickets. The client shares this machine's processors with the API.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import httpx2
import psutil
import uvloop
from rich.console import Console
from rich.table import Table

from api.cli.home import Home
from api.cli.supervisor import redis_server
from bench.byte_level import byte_level_bpe
from bench.platform import free_port
from storage.database.connections import Database
from storage.database.migration import migrate
from storage.fleet.manifests import put_manifest
from storage.model_manifest import ModelManifest

MODEL = "bench"
CONCURRENCY = (1, 8, 64)
_CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_TEXT = "The quick brown fox jumps over the lazy dog while seventeen engineers measure how long it takes."


@dataclass(slots=True)
class Round:
    """One measurement in progress.

    status:      what the answers are to have
    skips_first: whether the first answer on each connection does not count: libuv takes in one new connection in each
                 turn of its loop, so that many at once wait for that and not for their answers
    """

    status: bytes
    skips_first: bool
    num_left: int
    num_open: int
    done: asyncio.Future[None]
    latencies_s: list[float] = field(default_factory=list)
    refused: set[bytes] = field(default_factory=set)


class Caller(asyncio.Protocol):
    """A keep-alive connection that posts one job after another; parses as little as it can."""

    def __init__(self, request: bytes, state: Round) -> None:
        self._request, self._state = request, state
        self._buffer = b""
        self._is_warm = False
        self._sent_at = 0.0
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._post()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, separator, body = self._buffer.partition(b"\r\n\r\n")
        if not separator or len(body) < int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]):
            return
        if not head.startswith(b"HTTP/1.1 " + self._state.status):
            self._state.refused.add(self._buffer[:300])
        if self._is_warm or not self._state.skips_first:
            self._state.latencies_s.append(time.perf_counter() - self._sent_at)
        self._is_warm = True
        self._buffer = b""
        self._post()

    def connection_lost(self, error: Exception | None) -> None:
        self._state.num_open -= 1
        if self._state.num_open == 0:
            self._state.done.set_result(None)

    def _post(self) -> None:
        if self._state.num_left <= 0:
            self._transport.close()
            return
        self._state.num_left -= 1
        self._sent_at = time.perf_counter()
        self._transport.write(self._request)


def prompt_of(num_words: int) -> str:
    """English of so many words."""
    words = _TEXT.split()
    return " ".join(words[index % len(words)] for index in range(num_words))


async def measure(port: int, num_jobs: int, concurrency: int, num_words: int) -> tuple[float, list[float]]:
    """Jobs accepted a second, and every latency in seconds."""
    return await answers(port, num_jobs, concurrency, num_words, b"200")


async def answers(
    port: int, num_jobs: int, concurrency: int, num_words: int, status: bytes
) -> tuple[float, list[float]]:
    """Answers a second, and the latencies in seconds; each must begin with this status, and what is not 200 is timed on
    connections that stand.
    """
    body = json.dumps(
        {"model": MODEL, "input": prompt_of(num_words), "background": True, "max_output_tokens": 64}
    ).encode()
    request = (
        b"POST /v1/responses HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        b"authorization: Bearer none\r\naccept: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    )
    loop = asyncio.get_running_loop()
    state = Round(
        status=status, skips_first=status != b"200", num_left=num_jobs, num_open=concurrency, done=loop.create_future()
    )
    started = time.perf_counter()
    for _ in range(concurrency):
        await loop.create_connection(lambda: Caller(request, state), "127.0.0.1", port)
    await state.done
    took_s = time.perf_counter() - started
    if state.refused:
        raise SystemExit(f"answered otherwise: {state.refused.pop()!r}")
    return num_jobs / took_s, state.latencies_s


def make_manifest() -> ModelManifest:
    """A manifest with a byte-level BPE tokenizer, trained on some of the standard library's own sources."""
    sources = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("[a-d]*.py"))
    texts = (path.read_text("utf-8", "replace") for path in sources)
    tokenizer = byte_level_bpe(texts, 8192, ["<|im_start|>", "<|im_end|>"])
    return ModelManifest(
        model=MODEL,
        context_length=4096,
        tokenizer_json=tokenizer.to_str(),
        chat_template=_CHATML,
        special_tokens={},
        capabilities={"chat": True, "completion": True},
    )


@contextlib.contextmanager
def serving(
    home: Home, database_url: str, more_settings: Mapping[str, str] | None = None
) -> Iterator[tuple[int, psutil.Process]]:
    """One API process with a Redis and a migrated database; gives its port."""
    home.create()
    migrate(database_url)
    database = Database(database_url)
    with database.begin() as connection:
        put_manifest(connection, make_manifest(), datetime.now(UTC))
    database.dispose()
    port = free_port()
    settings = {
        "TOKENPOST_DATABASE_URL": database_url,
        "TOKENPOST_REDIS_URL": home.redis_url,
        "TOKENPOST_PORT": str(port),
        "TOKENPOST_LOG_LEVEL": "WARNING",
        **(more_settings or {}),
    }
    redis = subprocess.Popen(redis_server.server_command(redis_server.find_program(), home, 1024), stdout=-3)
    api = subprocess.Popen([sys.executable, "-m", "api.server.entry_point"], env={**os.environ, **settings})
    try:
        _wait_ready(port)
        yield port, psutil.Process(api.pid)
    finally:
        for process in (api, redis):
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def _wait_ready(port: int) -> None:
    deadline = time.monotonic() + 60
    with httpx2.Client(trust_env=False) as client:
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx2.HTTPError):
                # No worker is there, and none is needed: accepting is all that is measured.
                if client.get(f"http://127.0.0.1:{port}/readyz").json().get("redis") == "ok":
                    return
            time.sleep(0.1)
    raise SystemExit("the API was not ready in time")


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=20000, help="at the highest concurrency; fewer below")
    parser.add_argument("--words", type=int, default=36, help="length of the prompt")
    parser.add_argument("--postgres", metavar="URL", help="an empty database instead of SQLite")
    options = parser.parse_args()
    table = Table(title=f"background jobs accepted by one API process, prompts of {options.words} words")
    for heading in ("at once", "jobs/s", "p50 ms", "p99 ms", "API CPU us/job"):
        table.add_column(heading, justify="right")
    with tempfile.TemporaryDirectory(prefix="tokenpost-bench-", ignore_cleanup_errors=True) as name:
        home = Home(path=Path(name))
        with serving(home, options.postgres or home.database_url) as (port, process):
            uvloop.run(measure(port, 500, 16, options.words))
            for concurrency in CONCURRENCY:
                num_jobs = max(500, options.jobs * concurrency // CONCURRENCY[-1])
                before = sum(process.cpu_times()[:2])
                rate, latencies_s = uvloop.run(measure(port, num_jobs, concurrency, options.words))
                cpu_us = 1e6 * (sum(process.cpu_times()[:2]) - before) / num_jobs
                cuts = statistics.quantiles(latencies_s, n=100)
                table.add_row(
                    str(concurrency), f"{rate:,.0f}", f"{1e3 * cuts[49]:.1f}", f"{1e3 * cuts[98]:.1f}", f"{cpu_us:.0f}"
                )
    Console().print(table)


if __name__ == "__main__":
    main()
