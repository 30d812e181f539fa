"""The smallest streaming `POST /v1/completions` over whatever generates: no queue, no database, no framework.

Standard library only, so that it also runs in a peer's own environment.
"""

import asyncio
import json
from collections.abc import Callable
from typing import Protocol, cast

# Text that became certain, tokens behind it, and whether nothing follows.
OnText = Callable[[str, int, bool], None]

_ANSWER = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n",
    b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok",
)
_CHUNK = '{"id":"%s","object":"text_completion","created":0,"model":"bench","choices":[{"index":0,"text":%s,"logprobs":null,"finish_reason":%s}]}'  # noqa: E501 - one frame
_USAGE = '{"id":"%s","object":"text_completion","created":0,"model":"bench","choices":[],"usage":{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}}'  # noqa: E501


class Generator(Protocol):
    """What the server streams from."""

    def submit(self, prompt: list[int], max_tokens: int, on_text: OnText) -> None:
        """Generate greedily, past any end of sequence; `on_text` is called on the loop's thread."""


class Courier:
    """Carries a step's texts from the thread that computes to the loop's, in one call a step."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def deliver(self, texts: list[tuple[OnText, str, int, bool]]) -> None:
        """Call each of them, soon."""
        self._loop.call_soon_threadsafe(_call_all, texts)


def _call_all(texts: list[tuple[OnText, str, int, bool]]) -> None:
    for on_text, text, num_tokens, is_last in texts:
        on_text(text, num_tokens, is_last)


class _Connection(asyncio.Protocol):
    """One request; the connection ends with its answer."""

    def __init__(self, generator: Generator) -> None:
        self._generator = generator
        self._received = b""
        self._num_tokens = 0
        self._num_prompt = 0
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast: uvloop's transports have the methods of asyncio.Transport but do not descend from it.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator or len(body) < _length_of(head):
            return
        if head.startswith(b"POST /v1/completions"):
            self._answer(json.loads(body))
        else:
            self._transport.write(_ANSWER[2 if head.startswith(b"GET /health") else 1])
            self._transport.close()

    def _answer(self, fields: dict[str, object]) -> None:
        prompt, max_tokens = fields["prompt"], fields["max_tokens"]
        assert isinstance(prompt, list)
        assert isinstance(max_tokens, int)
        self._num_prompt = len(prompt)
        self._transport.write(_ANSWER[0])
        self._generator.submit(prompt, max_tokens, self._on_text)

    def _on_text(self, text: str, num_tokens: int, is_last: bool) -> None:
        self._num_tokens += num_tokens
        name = f"cmpl-{id(self):x}"
        frame = f"data: {_CHUNK % (name, json.dumps(text), _finish(is_last))}\n\n"
        if is_last:
            total = self._num_prompt + self._num_tokens
            frame += f"data: {_USAGE % (name, self._num_prompt, self._num_tokens, total)}\n\ndata: [DONE]\n\n"
        if not self._transport.is_closing():
            self._transport.write(frame.encode())
            if is_last:
                self._transport.close()


def _finish(is_last: bool) -> str:
    return '"length"' if is_last else "null"


def _length_of(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


async def serve(port: int, generator: Generator) -> None:
    """Answer on loopback until cancelled."""
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(generator), "127.0.0.1", port)
    async with server:
        await server.serve_forever()
