"""The API process: `python -m api.server.entry_point [FD]`, settings from TOKENPOST_*; FD is an inherited socket."""

import asyncio
import signal
import socket
import sys

import structlog
import uvicorn
from fastapi import FastAPI
from pydantic import Field

from api.app import begin_shutdown, create_app
from api.cli.supervisor.listener import listen
from api.server.write_deadline import WriteDeadline
from storage.errors import PlatformError
from storage.process import logging_setup
from storage.process.garbage_collection import spare_the_collector
from storage.process.logging_setup import LogSettings
from storage.settings import PlatformSettings

# A proxy in front holds its connections longer than uvicorn's own 5 s, and must not find one closed.
_KEEP_ALIVE_S = 75
# Streams that are told to end need a moment to say so; clients who do not read then are not waited for.
_PARTING_S = 3
_GOODBYE_S = 1.0
# uvicorn's ticks, ten a second, between two looks at clients who may not read.
_LOOK_TICKS = 5

log = structlog.get_logger()


class ServerSettings(PlatformSettings):
    """Where the API listens and how long it waits for its clients.

    drain_grace_s:    after SIGTERM open streams may go on so long; then they end with an error that can be retried
    write_deadline_s: a client that takes nothing of what waits for it for so long is cut
    """

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    drain_grace_s: float = Field(default=20.0, ge=0)
    write_deadline_s: float = Field(default=30.0, gt=0)


class Server(uvicorn.Server):
    """uvicorn that lets streams end before it goes, tells those that do not, and waits for no client for ever."""

    def __init__(self, app: FastAPI, settings: ServerSettings) -> None:
        super().__init__(_config_of(app, settings))
        self._app = app
        self._drain_grace_s = settings.drain_grace_s
        self._deadline = WriteDeadline(settings.write_deadline_s)

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, within the application's life: what is wrong at its start is raised, not printed in full."""
        async with self._app.router.lifespan_context(self._app):
            await super().serve(sockets)

    async def on_tick(self, counter: int) -> bool:
        """As uvicorn's; now and then with a look at clients who do not read."""
        if counter % _LOOK_TICKS == 0:
            transports = [connection.transport for connection in self.server_state.connections]
            try:
                self._deadline.look(transports, asyncio.get_running_loop().time())
            except Exception:  # the tick's door: behind it the whole server would end
                log.exception("write_deadline_broken")
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, with the streams' grace cut short at its end."""
        call_later = asyncio.get_running_loop().call_later
        cuts = (
            call_later(self._drain_grace_s, begin_shutdown, self._app),
            call_later(self._drain_grace_s + _GOODBYE_S, self._leave_who_does_not_read),
        )
        await super().shutdown(sockets)
        for cut in cuts:
            cut.cancel()

    def _leave_who_does_not_read(self) -> None:
        for connection in list(self.server_state.connections):
            if connection.transport.get_write_buffer_size():
                connection.transport.abort()


def main(arguments: list[str]) -> None:
    """Serve until SIGTERM or Ctrl-C; PlatformError for a wrong setting."""
    settings = ServerSettings.read()
    logging_setup.configure(LogSettings.read())
    server = Server(create_app(), settings)
    log.info("api_starting", host=settings.host, port=settings.port)
    spare_the_collector()
    with socket.socket(fileno=int(arguments[0])) if arguments else listen(settings.host, settings.port) as sock:
        server.run(sockets=[sock])


def _config_of(app: FastAPI, settings: ServerSettings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="uvloop",
        # httptools takes one header of 64 MB and blocks on it; h11 refuses.
        http="h11",
        ws="none",
        # `Server.serve` sees to it.
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        # Nothing here believes what a proxy says of its clients.
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=round(settings.drain_grace_s) + _PARTING_S,
    )


def _leave(*_: object) -> None:
    """What is left to do at a signal: uvicorn has ended in order and raises it again for whoever listens."""
    sys.exit(0)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    try:
        main(sys.argv[1:])
    except PlatformError as error:
        sys.exit(f"tokenpost: {error.message}")
