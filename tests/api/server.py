"""A real server on loopback, in a thread of the tests: streams and clients that leave need one."""

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager

import uvloop
from fastapi import FastAPI

from api.app import create_app
from api.cli.listener import listen
from api.server import entry_point
from api.settings import ApiSettings
from tests.waiting import wait_until

# What the keys of the servers are hashed with.
PEPPER = b"pepper-of-a-test"


class Server:
    """An API that answers at `url`."""

    def __init__(self, settings: ApiSettings, **limits: float) -> None:
        """limits: fields of `ServerSettings`"""
        self.app: FastAPI = create_app(settings)
        server_settings = entry_point.ServerSettings.model_validate({"drain_grace_s": 0, **limits})
        self._server = entry_point.Server(self.app, server_settings)
        self._socket = listen("127.0.0.1", 0)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self.url = ""

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._socket.getsockname()[1])

    @property
    def num_connections(self) -> int:
        """How many clients' connections it holds."""
        return len(self._server.server_state.connections)

    def start(self) -> None:
        """Return when it answers."""
        self._thread.start()
        wait_until(lambda: self._server.started or not self._thread.is_alive(), 20, "the start of the server")
        if not self._server.started:
            self._socket.close()
        assert self._server.started, "the server did not start"
        self.url = f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        """End it, open streams at once."""
        self._server.should_exit = True
        self._thread.join(20)
        assert not self._thread.is_alive()

    def call(self, function, *arguments):  # type: ignore[no-untyped-def]  # any function, on the server's loop
        """Run something on the server's event loop, soon."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(function, *arguments)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            self._loop = runner.get_loop()
            runner.run(self._server.serve([self._socket]))


def set_clock(server: Server, seconds: float) -> None:
    """Shift the server's own clock by so much; return after it was compared with the database's."""
    done: Future[None] = Future()

    async def compare() -> None:
        clock = server.app.state.jobs.database.clock
        clock._local = lambda: time.time() + seconds
        await clock._refresher.renew()
        done.set_result(None)

    server.call(lambda: asyncio.ensure_future(compare()))
    done.result(10)


@contextmanager
def serving(settings: ApiSettings, **limits: float) -> Iterator[Server]:
    """A running server; `limits` are fields of `ServerSettings`."""
    running = Server(settings, **limits)
    running.start()
    try:
        yield running
    finally:
        running.stop()
