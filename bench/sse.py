"""What a token event costs an API process on its way from Redis to its clients' sockets: `python -m bench.sse`.

One process as `tokenpost serve` runs it, a real Redis, no worker: background jobs are queued and streamed, and engine
steps are published for them at a steady rate, one token for each job. The figure is the API's own CPU time.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import cast

import msgspec
import psutil
import uvloop
from redis import Redis
from rich.console import Console
from rich.table import Table

from api.cli.home import Home
from bench.accept import MODEL, serving
from storage.broker.event_log import encode_end, encode_tokens, reader_channel
from storage.broker.redis_client import connect
from storage.contract import End, EntryKind, FinishReason, JobStatus, TokenEvent

SIZES = (1, 32, 128)
_STEP_S = 0.01
_LIMIT_S = 60.0
# The median of so many steps' figures counts: other processes disturb some of them.
_WINDOW = 20
_JOB_ID = b"x-job-id: "


class Listener(asyncio.Protocol):
    """A streaming client that looks only for its job's id, empty where an answer has none, and for the end."""

    def __init__(self, request: bytes) -> None:
        loop = asyncio.get_running_loop()
        self._request = request
        self._tail = b""
        self.num_reads = 0
        self.job_id: asyncio.Future[str] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast: uvloop's transports have the methods of asyncio.Transport but do not descend from it.
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self.num_reads += 1
        if not self.job_id.done():
            if not data.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"refused: {data!r}")
            self.job_id.set_result(data.partition(_JOB_ID)[2].partition(b"\r")[0].decode())
        self._tail = (self._tail + data)[-64:]
        if b"data: [DONE]" in self._tail and not self.ended.done():
            self.ended.set_result(None)

    def close(self) -> None:
        """Leave."""
        self._transport.close()


def streaming_request(prompt: str) -> bytes:
    """A POST that creates a background job and streams it."""
    body = json.dumps({"model": MODEL, "input": prompt, "background": True, "stream": True}).encode()
    head = b"POST /v1/responses HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    return head + b"content-length: %d\r\n\r\n%b" % (len(body), body)


async def open_streams(port: int, count: int, request_of: Callable[[int], bytes]) -> list[Listener]:
    """So many connections, each with an answer that has begun; `request_of` gives what the n-th asks."""
    loop = asyncio.get_running_loop()
    listeners = []
    for index in range(count):
        _, listener = await loop.create_connection(partial(Listener, request_of(index)), "127.0.0.1", port)
        await asyncio.wait_for(listener.job_id, _LIMIT_S)
        listeners.append(listener)
    return listeners


class Steps:
    """Publishes engine steps of some jobs, as the log's script does."""

    def __init__(self, redis: Redis, job_ids: list[str]) -> None:
        self._redis = redis
        self._job_ids = job_ids
        self._seq = 0
        self._encode = msgspec.msgpack.Encoder().encode
        # The only API process.
        [self._channel] = redis.pubsub_channels(reader_channel("*"))

    def publish(self, *, is_last: bool = False) -> None:
        """One token of each job."""
        self._seq += 1
        event = TokenEvent(
            choice=0, token_ids=(self._seq,), text=" token", finish=FinishReason.LENGTH if is_last else None
        )
        self._send(EntryKind.TOKENS, encode_tokens([event]))

    def end(self) -> None:
        """The end of each job's log."""
        self._seq += 1
        self._send(EntryKind.END, encode_end(End(status=JobStatus.INCOMPLETE, usage=None, ended_at=1)))

    def _send(self, kind: EntryKind, data: bytes) -> None:
        rows = [(job_id, 1, self._seq, int(kind), data.decode()) for job_id in self._job_ids]
        self._redis.publish(self._channel, self._encode(("bench", self._seq, rows)))


def cpu_s(process: psutil.Process) -> float:
    """Seconds of CPU time of its main thread so far, to the nanosecond."""
    return int(Path(f"/proc/{process.pid}/schedstat").read_text().split()[0]) / 1e9


async def measure(port: int, redis: Redis, api: psutil.Process, num_streams: int, num_steps: int) -> float:
    """Microseconds of the API's CPU time an event."""
    listeners = await open_streams(port, num_streams, lambda _: streaming_request("Hi"))
    steps = Steps(redis, [listener.job_id.result() for listener in listeners])
    for _ in range(20):
        steps.publish()
        await asyncio.sleep(_STEP_S)
    costs_us, began, before = list[float](), time.monotonic(), cpu_s(api)
    for index in range(1, num_steps + 1):
        steps.publish(is_last=index == num_steps)
        await asyncio.sleep(max(0.0, began + index * _STEP_S - time.monotonic()))
        if index % _WINDOW == 0:
            now = cpu_s(api)
            costs_us.append(1e6 * (now - before) / (_WINDOW * num_streams))
            before = now
    steps.end()
    await asyncio.wait_for(asyncio.gather(*(listener.ended for listener in listeners)), _LIMIT_S)
    for listener in listeners:
        listener.close()
    return statistics.median(costs_us)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--streams", type=int, action="append")
    options = parser.parse_args()
    table = Table(title=f"{1 / _STEP_S:.0f} steps/s, one token a stream and step")
    for heading in ("streams", "CPU us/event of the API"):
        table.add_column(heading, justify="right")
    with tempfile.TemporaryDirectory(prefix="tokenpost-bench-", ignore_cleanup_errors=True) as name:
        home = Home(path=Path(name))
        with serving(home, home.database_url) as (port, api), connect(home.redis_url) as redis:
            for num_streams in options.streams or SIZES:
                cost_us = uvloop.run(measure(port, redis, api, num_streams, options.steps))
                table.add_row(str(num_streams), f"{cost_us:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
