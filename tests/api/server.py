"""A real server on loopback, in a thread of the tests: streams and clients that leave need one."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from api.app import begin_shutdown, create_app
from api.settings import ApiSettings
from tests.waiting import wait_until


class Server:
    """An API that answers at `url`."""

    def __init__(self, settings: ApiSettings) -> None:
        self.app: FastAPI = create_app(settings)
        config = uvicorn.Config(
            self.app,
            port=0,
            loop="uvloop",
            http="h11",
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=3,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self.url = ""

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.servers[0].sockets[0].getsockname()[1])

    def start(self) -> None:
        """Return when it answers."""
        self._thread.start()
        wait_until(lambda: self._server.started or not self._thread.is_alive(), 20, "the start of the server")
        assert self._server.started, "the server did not start"
        self.url = f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        """End it, open streams at once."""
        self.call(begin_shutdown, self.app)
        self._server.should_exit = True
        self._thread.join(20)
        assert not self._thread.is_alive()

    def call(self, function, *arguments):  # type: ignore[no-untyped-def]  # any function, on the server's loop
        """Run something on the server's event loop, soon."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(function, *arguments)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=uvicorn.Config("", loop="uvloop").get_loop_factory()) as runner:
            self._loop = runner.get_loop()
            runner.run(self._server.serve())


@contextmanager
def serving(settings: ApiSettings) -> Iterator[Server]:
    """A running server."""
    server = Server(settings)
    server.start()
    try:
        yield server
    finally:
        server.stop()
