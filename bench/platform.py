"""A running platform for the benches, and a client so cheap that it does not measure itself."""

import asyncio
import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2

_START_LIMIT_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamTimes:
    """What one stream took.

    first_s:    from the request to the first chunk that holds text, seconds
    total_s:    to the end of the stream, seconds
    num_tokens: as the platform's own usage counts them
    """

    first_s: float
    total_s: float
    num_tokens: int


def free_port() -> int:
    """A TCP port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(home: Path, *arguments: str) -> Iterator[int]:
    """`tokenpost up` in `home`, ready to answer; gives the port and stops everything at the end."""
    port = free_port()
    command = [sys.executable, "-m", "api.cli.main", "up", "--home", str(home), "--port", str(port), *arguments]
    log = (home / "bench.log").open("wb")
    process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        _wait_ready(port, process)
        yield port
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)
        log.close()


def _wait_ready(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_LIMIT_S
    with httpx2.Client(trust_env=False) as client:
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise SystemExit(f"tokenpost up ended with {process.returncode}; see bench.log in its home")
            with contextlib.suppress(httpx2.HTTPError):
                if client.get(f"http://127.0.0.1:{port}/readyz").status_code == 200:
                    return
            time.sleep(0.2)
    raise SystemExit("tokenpost up was not ready in time")


async def stream_completion(port: int, *, model: str, prompt: list[int], max_tokens: int) -> StreamTimes:
    """One streamed greedy completion over a bare socket."""
    fields = {"model": model, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "stream": True}
    body = json.dumps(fields | {"stream_options": {"include_usage": True}}).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    started = time.perf_counter()
    writer.write(
        b"POST /v1/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        b"connection: close\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
    )
    first_s, answer = 0.0, b""
    try:
        while block := await reader.read(65536):
            answer += block
            if not first_s and b'"text":"' in answer:
                first_s = time.perf_counter() - started
    finally:
        writer.close()
        await writer.wait_closed()
    return StreamTimes(first_s=first_s, total_s=time.perf_counter() - started, num_tokens=_num_tokens(answer))


def _num_tokens(answer: bytes) -> int:
    found = re.findall(rb'"completion_tokens":(\d+)', answer)
    if not found or not answer.rstrip().endswith((b"[DONE]", b"0")):
        raise SystemExit(f"a stream did not end well: {answer[-300:]!r}")
    return int(found[-1])
