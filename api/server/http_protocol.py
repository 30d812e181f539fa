"""HTTP/1.1 protocol of one connection: uvicorn's httptools implementation with limits on what a client may send.

The parser itself has no bounds: it would collect one header of 64 MB for seconds. Here the size and the number of the
headers, the overhead of chunks, the depth of pipelining and the bytes discarded after a refusal are limited, and every
refusal has the platform's error body. `api/server/read_deadline.py` limits the time.
"""

import asyncio
import urllib.parse
from typing import Any

import httptools
import msgspec
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from api.errors import HeadTooLarge, MalformedRequest, answer_of, envelope_of, headers_of
from api.server.connection_limits import ConnectionLimits, Phase
from api.server.message_sizes import MAX_HEAD_BYTES, MessageSizes
from api.server.response_cycle import ResponseCycle
from storage.errors import PlatformError

MAX_HEADERS = 200
_MAX_PIPELINED = 16
_VERSIONS = frozenset({"1.1", "1.0"})


class HttpProtocol(HttpToolsProtocol):
    """One client's connection.

    phase:    what is being received; ANSWER when a whole request was received and its response is not complete
    since:    time of the event loop at which the phase began
    has_sent: whether the client has sent a byte
    address:  the client's IP address; empty for a Unix socket
    """

    def __init__(
        self,
        limits: ConnectionLimits,
        *,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],  # Any: uvicorn's own type
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._limits = limits
        # Without the leniency that uvicorn sets for data after `connection: close`.
        self.parser = httptools.HttpRequestParser(self)
        self.phase = Phase.HEAD
        self.since = self.loop.time()
        self.has_sent = False
        # The request that is being answered; `cycle` is the one that is being received.
        self._active: ResponseCycle | None = None
        self.address = ""
        self._sizes = MessageSizes()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, or refuse it where the process or its address has too many."""
        super().connection_made(transport)
        self.address = self.client[0] if self.client else ""
        refusal = self._limits.admit(self, self.loop.time())
        if refusal is not None:
            self._enter(Phase.REFUSED)
            self.transport.write(_response_to(refusal))
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Free the connection's place."""
        super().connection_lost(exc)
        self._limits.release(self)

    @property
    def is_answering(self) -> bool:
        """Whether a response is in progress."""
        return self._active is not None and not self._active.response_complete

    @property
    def is_evictable(self) -> bool:
        """Whether it waits for its client only: no response was started that is not complete."""
        if self.phase is Phase.BODY and self.cycle is self._active:
            return self.cycle.response_complete or not self.cycle.response_started
        return not self.is_answering

    @property
    def is_paused(self) -> bool:
        """Whether the server itself has stopped reading."""
        return self.flow.read_paused

    def take_progress(self) -> int:
        """Bytes of the body that the application was given since the last call."""
        return self._sizes.take_progress()

    def abort(self) -> None:
        """Close at once, without a response."""
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Parse what the client sent, within the limits."""
        if self.phase is Phase.REFUSED:
            return
        self.has_sent = True
        if self.phase is Phase.IDLE:
            self._enter(Phase.HEAD)
        if self.phase is not Phase.BODY and not self._sizes.has_room_for_head(data):
            self.refuse(HeadTooLarge(f"The request's headers are larger than {MAX_HEAD_BYTES} bytes."))
            return
        self._sizes.add_received(data)
        self._feed(data)
        if self.phase is Phase.HEAD:
            self._sizes.add_head(data)
        elif self.phase is Phase.BODY and self._sizes.has_too_much_overhead:
            self.refuse(MalformedRequest("The request body has too many chunk headers or trailers for its size."))

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # No upgrade is offered, so the server goes on with HTTP/1.1 (RFC 9110, 7.8). The parser, however, takes
            # what follows the head for another protocol, be it the body of a POST.
            head = _head_without_upgrade(self.parser.get_method(), self.url, self.headers)
            self.parser = httptools.HttpRequestParser(self)
            self._feed(head + data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            cause = error.__context__
            if isinstance(cause, PlatformError):
                self.refuse(cause)
            else:
                self.refuse(MalformedRequest("Invalid HTTP request received."))

    def _start(self, cycle: ResponseCycle) -> None:
        self._active = cycle
        self._start_asgi_task(cycle, self.app)

    def _enter(self, phase: Phase) -> None:
        self._limits.enter(self, phase, self.loop.time())

    # Callbacks of the parser.

    def on_message_begin(self) -> None:
        """Start the scope of a new request."""
        if len(self.pipeline) >= _MAX_PIPELINED:
            raise MalformedRequest("Too many requests are sent before their responses were read.")
        super().on_message_begin()
        if self.phase is not Phase.HEAD:
            self._enter(Phase.HEAD)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; trailers of chunked bodies are dropped."""
        if self.phase is not Phase.HEAD:
            return
        if len(self.headers) >= MAX_HEADERS:
            raise HeadTooLarge(f"The request has more than {MAX_HEADERS} headers.")
        name = name.lower()
        if name == b"transfer-encoding" and (value.lower() != b"chunked" or self.parser.get_http_version() == "1.0"):
            raise MalformedRequest("The only transfer encoding that is accepted is 'chunked', in HTTP/1.1.")
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Start the application on the request whose head is complete."""
        if self.parser.get_method() == b"CONNECT":
            raise MalformedRequest("This server is no proxy: CONNECT is not accepted.")
        if self.parser.should_upgrade():
            return  # parsed again without the upgrade
        version, scope = self.parser.get_http_version(), self.scope
        if version not in _VERSIONS:
            raise MalformedRequest("The HTTP version must be 1.0 or 1.1.")
        scope["method"] = self.parser.get_method().decode("ascii")
        scope["http_version"] = version
        url = httptools.parse_url(self.url)
        raw_path = url.path or b"/"
        path = raw_path.decode("ascii")
        scope["path"] = urllib.parse.unquote(path) if "%" in path else path
        scope["raw_path"] = raw_path
        scope["query_string"] = url.query or b""
        self.cycle = cycle = ResponseCycle(
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=version != "1.0" and self.parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        self._sizes.begin_body()
        self._enter(Phase.BODY)
        if not self.is_answering:
            self._start(cycle)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body for the application; after the response it is discarded."""
        cycle = self.cycle
        if not self._sizes.add_body(body, is_discarded=cycle.response_complete):
            self.transport.abort()
        if cycle.response_complete:
            return
        cycle.body += body
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        """Tell the application that the body is complete."""
        if self.phase is Phase.HEAD:
            return  # an upgrade: see `on_headers_complete`
        self._sizes.end()
        cycle = self.cycle
        if cycle.response_complete:
            self._enter(Phase.IDLE)
            return
        self._enter(Phase.ANSWER)
        cycle.more_body = False
        cycle.message_event.set()

    def on_response_complete(self) -> None:
        """Go on with the next pipelined request, or wait for one."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, _ = self.pipeline.pop()
            assert isinstance(cycle, ResponseCycle)
            self._start(cycle)
        else:
            self._enter(Phase.IDLE if self.phase is Phase.ANSWER else self.phase)

    # Ends that the server decides.

    def refuse(self, error: PlatformError) -> None:
        """Answer with the error and close; the answer to an earlier request in progress is completed instead."""
        phase, cycle = self.phase, self.cycle
        self._enter(Phase.REFUSED)
        if phase is Phase.BODY and cycle is self._active:
            if cycle.response_started:
                self.transport.abort()
                return
            cycle.disconnected = True
            cycle.message_event.set()
        elif self.is_answering:
            self._close_after_answer()
            return
        self.flow.resume_reading()
        self.transport.write(_response_to(error))
        # Closing at once would make the kernel send RST for unread input, and the client might lose the answer.
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def _close_after_answer(self) -> None:
        assert self._active is not None
        self._active.keep_alive = False
        self.pipeline.clear()
        self.flow.pause_reading()


def _head_without_upgrade(method: bytes, url: bytes, headers: list[tuple[bytes, bytes]]) -> bytes:
    dropped = (b"upgrade", b"connection", b"http2-settings")
    kept = [b"%b: %b\r\n" % (name, value) for name, value in headers if name not in dropped]
    return b"%b %b HTTP/1.1\r\n%b\r\n" % (method, url, b"".join(kept))


def _response_to(error: PlatformError) -> bytes:
    answer = answer_of(error)
    body = msgspec.json.encode(envelope_of(error))
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "connection": "close",
        **headers_of(error, answer),
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return STATUS_LINE[answer.status] + lines.encode("ascii") + b"\r\n" + body
