"""Batches: how fast one is accepted, what memory that takes, and what others notice of one that runs.

`python -m bench.batches [--lines 50000] [--requests 160] [--database-url URL]`: a whole platform with the `demo` model.

A batch is accepted when its file is uploaded, each line has a row, and its status is `in_progress`. Memory is resident
memory of each process, read ten times a second. Then streams of callers, 16 at a time, are measured alone and with that
batch behind them, in turns: the batch is cancelled and another one created in between.
"""

import argparse
import asyncio
import io
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import uvloop
from openai import OpenAI
from rich.console import Console
from rich.table import Table

from bench.platform import StreamTimes, running, stream_completion

MODEL = "demo"
TARGET_ACCEPT_S = 30.0
TARGET_GROWN_MB = 60.0
TARGET_FIRST_TOKEN = 1.5
NUM_STREAMS = 16
NUM_TURNS = 3
_ENDPOINT = "/v1/chat/completions"
_POLL_S = 0.1
_SETTLE_S = 3.0
_LIMIT_S = 600.0

console = Console(width=140)


def content_of(num_lines: int, num_tokens: int) -> bytes:
    """An input file whose lines ask for so many tokens each."""
    return b"".join(
        json.dumps(
            {
                "custom_id": f"request-{number}",
                "method": "POST",
                "url": _ENDPOINT,
                "body": {
                    "model": MODEL,
                    "messages": [{"role": "user", "content": f"Tell me a story about fox number {number}."}],
                    "max_tokens": num_tokens,
                    "ignore_eos": True,
                },
            }
        ).encode()
        + b"\n"
        for number in range(num_lines)
    )


class MemoryWatch:
    """The most resident memory that each process had, in megabytes beyond what it had before."""

    def __init__(self) -> None:
        children = psutil.Process().children(recursive=True)
        self._before = {process: process.memory_info().rss for process in children}
        self._roles = {process: _role_of(process) for process in children}
        self._most = dict(self._before)
        self._is_done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """A block in which memory is read."""
        self._thread.start()
        yield
        self._is_done.set()
        self._thread.join()

    def grown_mb(self) -> dict[str, float]:
        """By role of the process; where several have one, the one that grew most."""
        found: dict[str, float] = {}
        for process, most in self._most.items():
            role = self._roles[process]
            found[role] = max(found.get(role, 0.0), (most - self._before[process]) / 1e6)
        return found

    def _run(self) -> None:
        while not self._is_done.wait(_POLL_S):
            for process in self._before:
                try:
                    self._most[process] = max(self._most[process], process.memory_info().rss)
                except psutil.NoSuchProcess:
                    continue


def _role_of(process: psutil.Process) -> str:
    try:
        command = " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return "ended"
    roles = ("workers.cpu", "api.server.entry_point", "workers.gpu", "fork_server", "valkey", "redis", "api.cli.main")
    return next((role for role in roles if role in command), command[:40])


def create(client: OpenAI, content: bytes) -> str:
    """The id of a batch that is in progress."""
    file = client.files.create(purpose="batch", file=("in.jsonl", io.BytesIO(content)))
    made = client.batches.create(input_file_id=file.id, endpoint=_ENDPOINT, completion_window="24h")
    wait_for(client, made.id, "in_progress")
    return made.id


def wait_for(client: OpenAI, batch_id: str, *statuses: str) -> None:
    """Return when the batch has one of the statuses."""
    deadline = time.monotonic() + _LIMIT_S
    while time.monotonic() < deadline:
        batch = client.batches.retrieve(batch_id)
        if batch.status in statuses:
            return
        if batch.status == "failed":
            raise SystemExit(f"the batch failed: {batch.errors}")
        time.sleep(_POLL_S)
    raise SystemExit(f"the batch was not {statuses} in time")


async def streams(port: int, count: int) -> list[StreamTimes]:
    """So many streams of 24 tokens, NUM_STREAMS at a time."""
    is_free = asyncio.Semaphore(NUM_STREAMS)

    async def one(number: int) -> StreamTimes:
        async with is_free:
            prompt = [20 + (number + place) % 200 for place in range(24)]
            return await stream_completion(port, model=MODEL, prompt=prompt, max_tokens=24)

    return list(await asyncio.gather(*map(one, range(count))))


def percentile_ms(times: list[StreamTimes], share: float) -> float:
    """Milliseconds to the first token."""
    ordered = sorted(one.first_s for one in times)
    return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]


@dataclass(slots=True, kw_only=True)
class Beside:
    """Streams alone and beside a batch, and the batch's lines a second alone and beside streams."""

    alone: list[StreamTimes] = field(default_factory=list)
    beside: list[StreamTimes] = field(default_factory=list)
    batch_alone: list[float] = field(default_factory=list)
    batch_beside: list[float] = field(default_factory=list)


def num_completed(client: OpenAI, batch_id: str) -> int:
    """Lines that have completed."""
    counts = client.batches.retrieve(batch_id).request_counts
    assert counts is not None
    return counts.completed


def measure_beside(client: OpenAI, port: int, content: bytes, count: int) -> Beside:
    """All of them in turns."""
    seen = Beside()
    uvloop.run(streams(port, NUM_STREAMS))
    for _ in range(NUM_TURNS):
        seen.alone += uvloop.run(streams(port, count))
        batch_id = create(client, content)
        time.sleep(_SETTLE_S)
        before, started = num_completed(client, batch_id), time.monotonic()
        seen.beside += uvloop.run(streams(port, count))
        took_s, between = time.monotonic() - started, num_completed(client, batch_id)
        seen.batch_beside.append((between - before) / took_s)
        time.sleep(took_s)
        seen.batch_alone.append((num_completed(client, batch_id) - between) / took_s)
        client.batches.cancel(batch_id)
        wait_for(client, batch_id, "cancelled")
    return seen


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--lines", type=int, default=50_000)
    parser.add_argument("--requests", type=int, default=160)
    parser.add_argument("--database-url")
    options = parser.parse_args()
    if options.database_url:
        os.environ["TOKENPOST_DATABASE_URL"] = options.database_url
    content = content_of(options.lines, 1)
    folder = tempfile.TemporaryDirectory(prefix="tokenpost-bench-", ignore_cleanup_errors=True)
    with folder as name, running(Path(name), "--model", MODEL) as port:
        client = OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", timeout=120)
        # What is loaded once is loaded before.
        wait_for(client, create(client, content_of(20, 1)), "completed")
        watch = MemoryWatch()
        with watch.watching():
            started = time.monotonic()
            batch_id = create(client, content)
            accepted_s = time.monotonic() - started
            time.sleep(5)
        batch = client.batches.retrieve(batch_id)
        assert batch.request_counts is not None
        assert batch.request_counts.total == options.lines
        client.batches.cancel(batch_id)
        wait_for(client, batch_id, "cancelled")
        seen = measure_beside(client, port, content_of(min(options.lines, 5000), 64), options.requests)
    table = Table(title=f"{options.lines} lines, {len(content) / 1e6:.0f} MB")
    for heading in ("", "seen", "asked"):
        table.add_column(heading, justify="right")
    table.add_row("accepted", f"{accepted_s:.1f} s", f"{TARGET_ACCEPT_S:.0f} s")
    for role, grown in sorted(watch.grown_mb().items()):
        table.add_row(f"memory of {role}", f"{grown:+.0f} MB", f"{TARGET_GROWN_MB:.0f} MB")
    alone, beside = seen.alone, seen.beside
    ratio = percentile_ms(beside, 0.99) / percentile_ms(alone, 0.99)
    for share in (0.5, 0.99):
        cell = f"{percentile_ms(alone, share):.0f} ms alone, {percentile_ms(beside, share):.0f} ms beside"
        table.add_row(f"first token, p{100 * share:.0f}", cell, "")
    table.add_row("p99 beside / alone", f"{ratio:.2f}", f"{TARGET_FIRST_TOKEN}")
    rates = [statistics.fmean(one.num_tokens / one.total_s for one in times) for times in (alone, beside)]
    table.add_row("tokens/s of a stream", f"{rates[0]:.0f} alone, {rates[1]:.0f} beside", "")
    lines = [statistics.fmean(rates) for rates in (seen.batch_alone, seen.batch_beside)]
    table.add_row("lines/s of the batch", f"{lines[0]:.1f} alone, {lines[1]:.1f} beside", "")
    console.print(table)


if __name__ == "__main__":
    main()
