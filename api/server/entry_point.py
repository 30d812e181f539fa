"""The API process: `python -m api.server.entry_point [FD]`, settings from TOKENPOST_*; FD is an inherited socket."""

import asyncio
import os
import signal
import socket
import sys
from functools import partial

import structlog
import uvicorn
from fastapi import FastAPI
from pydantic import Field

from api.app import begin_shutdown, create_app
from api.cli.listener import listen
from api.server.connection_limits import ConnectionLimits
from api.server.http_protocol import HttpProtocol
from api.server.open_files import num_connections_within, raise_open_files_limit
from api.server.read_deadline import ReadDeadline
from api.server.write_deadline import WriteDeadline
from storage.errors import PlatformError
from storage.process import logging_setup
from storage.process.garbage_collection import spare_the_collector
from storage.process.logging_setup import LogSettings
from storage.settings import PlatformSettings

# Idle keep-alive time. A proxy in front keeps its connections for longer than uvicorn's own 5 s.
_KEEP_ALIVE_S = 75
# After the drain grace, streams get this long to write their last event; then clients who do not read are closed.
_LAST_EVENT_S = 1.0
# uvicorn's own limit for the whole shutdown comes this long after the drain grace.
_FORCED_END_S = 3
# The deadlines of clients are checked once in this many of uvicorn's ticks, of which there are ten a second.
_CHECK_TICKS = 5

log = structlog.get_logger()


class ServerSettings(PlatformSettings):
    """Settings of the HTTP server: its address and its deadlines for clients.

    drain_grace_s:    after SIGTERM, open streams go on for this long; then each ends with an error that can be retried
    write_deadline_s: a client that accepts no byte of its pending output for this long is disconnected
    head_deadline_s:  a client must send the whole head of a request in this time after it connected
    body_deadline_s:  a client must send the whole body in this time, or go on at 100 kB/s or more
    max_connections:  connections of one process; beyond that, those that wait for their client are closed
    max_connections_per_address: connections of one client address to one process; 0 is no limit
    """

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    drain_grace_s: float = Field(default=20.0, ge=0)
    write_deadline_s: float = Field(default=30.0, gt=0)
    head_deadline_s: float = Field(default=10.0, gt=0)
    body_deadline_s: float = Field(default=60.0, gt=0)
    max_connections: int = Field(default=10_000, ge=16)
    max_connections_per_address: int = Field(default=0, ge=0)


class Server(uvicorn.Server):
    """uvicorn server with a drain grace for open streams and a write deadline for clients."""

    def __init__(self, app: FastAPI, settings: ServerSettings) -> None:
        self._limits = ConnectionLimits(
            max_connections=num_connections_within(settings.max_connections),
            max_per_address=settings.max_connections_per_address,
        )
        super().__init__(_config_of(app, settings, self._limits))
        self._app = app
        self._drain_grace_s = settings.drain_grace_s
        self._write_deadline = WriteDeadline(settings.write_deadline_s)
        self._read_deadline = ReadDeadline(
            head_s=settings.head_deadline_s, body_s=settings.body_deadline_s, idle_s=_KEEP_ALIVE_S
        )

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve inside the application's lifespan; an error at its start is raised, not logged."""
        async with self._app.router.lifespan_context(self._app):
            await super().serve(sockets)

    async def on_tick(self, counter: int) -> bool:
        """Run uvicorn's tick and, every few ticks, check the deadlines of all clients."""
        if counter % _CHECK_TICKS == 0:
            now = asyncio.get_running_loop().time()
            try:
                self._read_deadline.check(self._limits.connections, now)
                self._write_deadline.check([one.transport for one in self.server_state.connections], now)
            except Exception:  # exception boundary: an error here would end the whole server
                log.exception("client_deadlines_failed")
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Shut down as uvicorn does; open streams end when the drain grace is over."""
        call_later = asyncio.get_running_loop().call_later
        timers = (
            call_later(self._drain_grace_s, begin_shutdown, self._app),
            call_later(self._drain_grace_s + _LAST_EVENT_S, self._abort_unread),
        )
        await super().shutdown(sockets)
        for timer in timers:
            timer.cancel()

    def _abort_unread(self) -> None:
        for connection in list(self.server_state.connections):
            if connection.transport.get_write_buffer_size():
                connection.transport.abort()


def main(arguments: list[str]) -> None:
    """Serve until SIGTERM or Ctrl-C; PlatformError for a wrong setting."""
    settings = ServerSettings.read()
    # A prompt is encoded by the thread that asks for it: handing it to the library's own threads takes longer.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    raise_open_files_limit()
    logging_setup.configure(LogSettings.read())
    server = Server(create_app(), settings)
    log.info("api_starting", host=settings.host, port=settings.port)
    spare_the_collector()
    with socket.socket(fileno=int(arguments[0])) if arguments else listen(settings.host, settings.port) as sock:
        server.run(sockets=[sock])


def _config_of(app: FastAPI, settings: ServerSettings, limits: ConnectionLimits) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="uvloop",
        # A class is asked for; uvicorn only calls it.
        http=partial(HttpProtocol, limits),  # type: ignore[arg-type]
        ws="none",
        # `Server.serve` runs it.
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        # Proxy headers are not trusted.
        proxy_headers=False,
        timeout_graceful_shutdown=round(settings.drain_grace_s) + _FORCED_END_S,
    )


def _exit(*_: object) -> None:
    """Signal handler: uvicorn has shut down in order and raises the signal again."""
    sys.exit(0)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _exit)
    try:
        main(sys.argv[1:])
    except PlatformError as error:
        sys.exit(f"tokenpost: {error.message}")
