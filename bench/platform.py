"""A running platform for the benches, and a client so cheap that it does not measure itself."""

import asyncio
import contextlib
import json
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
    """When a stream's token frames came, in seconds after the request was sent."""

    arrivals_s: tuple[float, ...]

    @property
    def first_s(self) -> float:
        """Time to the first token."""
        return self.arrivals_s[0]


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
    """One streamed completion over a bare socket; every `data:` line with text counts as a token."""
    body = json.dumps(
        {"model": model, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "stream": True}
    ).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    started = time.perf_counter()
    writer.write(
        b"POST /v1/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        b"connection: close\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
    )
    arrivals: list[float] = []
    try:
        while block := await reader.read(65536):
            now = time.perf_counter() - started
            arrivals.extend([now] * block.count(b'"object":"text_completion"'))
    finally:
        writer.close()
        await writer.wait_closed()
    if not arrivals:
        raise SystemExit("the platform streamed no token")
    return StreamTimes(arrivals_s=tuple(arrivals))
