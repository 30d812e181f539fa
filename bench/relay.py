"""The relay from PUBLISH to ready bytes: how many token events a second, and how long one takes.

`python -m bench.relay [--events 200000]`: chat streams of 32 and 128 jobs in one API process, without HTTP clients.
Another process publishes whole engine steps, one message each, as the log script does.
"""

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import uvloop
from rich.console import Console
from rich.table import Table

from api.caches.database_reads import Reader
from api.cli.home import Home
from api.cli.supervisor import redis_server
from api.protocol.kinds import fold_of
from api.streaming.backfill import Backfill
from api.streaming.log_reader import LogReader
from api.streaming.relay import Relay
from storage.broker.event_log import encode_tokens, reader_channel
from storage.broker.redis_client import connect, connect_async
from storage.contract import EntryKind, FinishReason, JobHeader, JobKind, TokenEvent
from storage.database.connections import Database
from storage.database.migration import migrate

SIZES = (32, 128)
_READER = "bench"
_STEP_S = 0.01
_LATENCY_STEPS = 300


def job_id_of(index: int) -> str:
    """The id of a job of the bench."""
    return f"chatcmpl-{index:032d}"


def publish(url: str, num_jobs: int, num_steps: int, pause_s: float) -> None:
    """Publish steps, each with one token for every job; the text of a slow step is the time of its publishing."""
    redis = connect(url)
    encode = msgspec.msgpack.Encoder().encode
    job_ids = [job_id_of(index) for index in range(num_jobs)]

    def blob(seq: int, text: str) -> bytes:
        finish = FinishReason.STOP if seq == num_steps else None
        data = encode_tokens([TokenEvent(choice=0, token_ids=(seq,), text=text, finish=finish)]).decode()
        return encode(("bench", seq, [(job_id, 1, seq, int(EntryKind.TOKENS), data) for job_id in job_ids]))

    ready = [] if pause_s else [blob(seq, " token") for seq in range(1, num_steps + 1)]
    print(time.monotonic(), flush=True)
    for message in ready:
        redis.publish(reader_channel(_READER), message)
    if pause_s:
        begin = time.monotonic()
        for seq in range(1, num_steps + 1):
            time.sleep(max(0.0, begin + seq * pause_s - time.monotonic()))
            redis.publish(reader_channel(_READER), blob(seq, f" {time.monotonic():.6f}"))
    redis.close()


class Stream:
    """Makes ready bytes of a job's entries, as a stream does, up to its last token."""

    def __init__(self, relay: Relay, index: int, num_steps: int, *, is_timed: bool) -> None:
        job_id = job_id_of(index)
        header = JobHeader(
            job_id=job_id, kind=JobKind.CHAT, model="bench", created_at=1, request={"model": "bench"}, context={}
        )
        self._fold = fold_of(header)
        self._num_steps = num_steps
        self._is_timed = is_timed
        self._subscription = relay.subscribe(job_id)
        self._subscription.listener = self._read
        self.num_bytes = 0
        self.delays_s: list[float] = []
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def is_filling(self) -> bool:
        """Whether the job's log is being read for it."""
        return self._subscription.is_filling

    def _read(self) -> None:
        entries = self._subscription.read()
        self.num_bytes += len(b"".join([frame for entry in entries for frame in self._fold.feed(entry)]))
        if self._is_timed:
            self.delays_s += [time.monotonic() - float(entry.tokens[0].text) for entry in entries]
        if entries and entries[-1].seq == self._num_steps:
            self.ended.set_result(None)


async def run(home: Home, num_jobs: int, num_steps: int, pause_s: float) -> tuple[float, float, list[Stream]]:
    """Seconds from the first PUBLISH to the last ready byte, those of our CPU, and what each stream saw."""
    database = Database(home.database_url)
    redis, listener = connect_async(home.redis_url), connect_async(home.redis_url, socket_timeout_s=None)
    reads = Reader(database, timeout_s=5)
    # The jobs of the bench have no rows to look at.
    relay = Relay(listener, Backfill(LogReader(redis), reads, reader=_READER), silence_s=3600)
    await relay.start()
    await relay.wait_connected(5)
    streams = [Stream(relay, index, num_steps, is_timed=pause_s > 0) for index in range(num_jobs)]
    # The jobs of the bench have no logs from which a stream could take what it misses while it is filled.
    while any(stream.is_filling for stream in streams):  # noqa: ASYNC110 - a bench, before it measures
        await asyncio.sleep(0.01)
    command = [sys.executable, "-m", "bench.relay", "--publish", home.redis_url, str(num_jobs), str(num_steps)]
    publisher = await asyncio.create_subprocess_exec(*command, str(pause_s), stdout=asyncio.subprocess.PIPE)
    assert publisher.stdout is not None
    began = float(await publisher.stdout.readline())
    cpu_began = time.process_time()
    await asyncio.gather(*(stream.ended for stream in streams))
    took_s, cpu_s = time.monotonic() - began, time.process_time() - cpu_began
    await publisher.wait()
    await relay.stop()
    await listener.aclose()
    await redis.aclose()
    reads.close()
    database.dispose()
    return took_s, cpu_s, streams


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=200_000, help="token events of the saturated runs")
    parser.add_argument("--publish", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.publish:
        url, num_jobs, num_steps, pause_s = options.publish
        publish(url, int(num_jobs), int(num_steps), float(pause_s))
        return
    table = Table(title="relay: PUBLISH to ready bytes, one API process, no clients")
    for heading in ("streams", "events/s", "CPU us/event", "MB/s", f"p50 ms at {1 / _STEP_S:.0f} steps/s", "p99 ms"):
        table.add_column(heading, justify="right")
    with tempfile.TemporaryDirectory(prefix="tokenpost-bench-", ignore_cleanup_errors=True) as name:
        home = Home(path=Path(name))
        home.create()
        migrate(home.database_url)
        server = subprocess.Popen(redis_server.server_command(redis_server.find_program(), home, 1024), stdout=-3)
        try:
            uvloop.run(redis_server.wait_until_ready(home.redis_url, 30))
            for num_jobs in SIZES:
                table.add_row(*_row(home, num_jobs, options.events // num_jobs))
        finally:
            server.terminate()
            server.wait(30)
    Console().print(table)


def _row(home: Home, num_jobs: int, num_steps: int) -> list[str]:
    took_s, cpu_s, streams = uvloop.run(run(home, num_jobs, num_steps, 0.0))
    _, _, slow = uvloop.run(run(home, num_jobs, _LATENCY_STEPS, _STEP_S))
    cuts = statistics.quantiles([1000 * delay_s for stream in slow for delay_s in stream.delays_s], n=100)
    num_mb = sum(stream.num_bytes for stream in streams) / 1e6
    num_events = num_jobs * num_steps
    rate, cpu_us = num_events / took_s, 1e6 * cpu_s / num_events
    return [
        str(num_jobs),
        f"{rate:,.0f}",
        f"{cpu_us:.1f}",
        f"{num_mb / took_s:.0f}",
        f"{cuts[49]:.2f}",
        f"{cuts[98]:.2f}",
    ]


if __name__ == "__main__":
    main()
