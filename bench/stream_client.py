"""A streaming client so light that two cores can carry it beside what it measures."""

import asyncio
import json
import re
import time
from dataclasses import dataclass
from typing import cast

_LIMIT_S = 120.0
_TEXT = b'"text"'
_USAGE = re.compile(rb'"completion_tokens":\s*(\d+)')


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """Streams that ran together.

    took_s:     from the first request to the end of the last answer, seconds
    num_tokens: output tokens, as the server's own usage counts them
    first_s:    from its request to its first text, of each stream
    gaps_s:     between two texts of a stream, over all streams
    steady_s:   those of them in which every stream had begun and none had ended: no prompt was read meanwhile
    """

    took_s: float
    num_tokens: int
    first_s: list[float]
    gaps_s: list[float]
    steady_s: list[float]

    @property
    def rate(self) -> float:
        """Output tokens a second."""
        return self.num_tokens / self.took_s


def percentile(values: list[float], share: float) -> float:
    """The value that this share of all values does not exceed; 0 where there are none."""
    return sorted(values)[min(int(share * len(values)), len(values) - 1)] if values else 0.0


class _Stream(asyncio.Protocol):
    """One request over a connection of its own."""

    def __init__(self, request: bytes, done: "asyncio.Future[None]") -> None:
        self._request = request
        self._done = done
        self._tail = b""
        self._transport: asyncio.Transport
        self.started = 0.0
        self.times: list[float] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast: uvloop's transports have the methods of asyncio.Transport but do not descend from it.
        self._transport = cast(asyncio.Transport, transport)
        self.started = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if _TEXT in data:
            self.times.append(time.perf_counter())
        self._tail = (self._tail + data)[-4096:]
        if b"data: [DONE]" in self._tail or self._tail.endswith(b"0\r\n\r\n"):
            self._transport.close()
            self._finish()

    def connection_lost(self, exc: Exception | None) -> None:
        self._finish()

    def _finish(self) -> None:
        if not self._done.done():
            self._done.set_result(None)

    @property
    def num_tokens(self) -> int:
        """As the usage at the end says."""
        found = _USAGE.findall(self._tail)
        if not found:
            raise SystemExit(f"a stream ended without usage: {self._tail[-600:]!r}")
        return int(found[-1])


def request_of(path: str, fields: dict[str, object]) -> bytes:
    """A POST, whole."""
    body = json.dumps(fields).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\nconnection: close\r\n"
    return head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body


async def run_together(port: int, requests: list[bytes]) -> Round:
    """Send all requests at once and read their streams to the end."""
    loop = asyncio.get_running_loop()
    streams, ends = [], []
    started = time.perf_counter()
    for request in requests:
        end: asyncio.Future[None] = loop.create_future()
        _, stream = await loop.create_connection(lambda r=request, e=end: _Stream(r, e), "127.0.0.1", port)  # type: ignore[misc]  # mypy cannot infer a lambda's defaults
        streams.append(stream)
        ends.append(end)
    async with asyncio.timeout(_LIMIT_S):
        await asyncio.gather(*ends)
    took_s = time.perf_counter() - started
    pairs = [pair for stream in streams for pair in zip(stream.times, stream.times[1:], strict=False)]
    times_of_streams = [stream.times for stream in streams if stream.times]
    all_began, first_ended = max(times[0] for times in times_of_streams), min(times[-1] for times in times_of_streams)
    return Round(
        took_s=took_s,
        num_tokens=sum(stream.num_tokens for stream in streams),
        first_s=[stream.times[0] - stream.started for stream in streams if stream.times],
        gaps_s=[late - early for early, late in pairs],
        steady_s=[late - early for early, late in pairs if all_began <= early and late <= first_ended],
    )
