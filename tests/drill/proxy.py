"""A TCP proxy between two parts that can hold back what they send, slow it, or cut their connections."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
_CHUNK = 65536
_PATIENCE_S = 10.0


class Proxy:
    """Listens on a port of this machine and passes everything on to a Unix socket; runs in a thread of its own."""

    def __init__(self, upstream: Path) -> None:
        self._upstream = upstream
        self._loop = asyncio.new_event_loop()
        self._flows = asyncio.Event()
        self._flows.set()
        self._delay_s = 0.0
        self._is_closed = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self.port = 0

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()
        server = self._run(asyncio.start_server(self._accept, "127.0.0.1", 0))
        self._server = server
        self.port = server.sockets[0].getsockname()[1]

    def stop(self) -> None:
        """Close everything."""
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_PATIENCE_S)
        self._loop.close()

    def hold(self) -> None:
        """Pass on nothing, in either direction; connections stay, and new ones are accepted."""
        self._call(self._flows.clear)

    def release(self) -> None:
        """Pass on what was held back, and everything to come."""
        self._call(self._flows.set)

    def delay(self, seconds: float) -> None:
        """Pass on every piece so much later."""
        self._delay_s = seconds

    def cut(self) -> None:
        """Reset every connection; what was held back is lost."""
        self._call(self._cut)

    def refuse(self, is_closed: bool) -> None:
        """Reset new connections at once, or let them in again."""
        self._is_closed = is_closed

    # On the loop.

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            if self._is_closed:
                _reset(writer)
                return
            far_reader, far_writer = await asyncio.open_unix_connection(str(self._upstream))
            self._writers.add(far_writer)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._pump(reader, far_writer))
                    group.create_task(self._pump(far_reader, writer))
            finally:
                self._writers.discard(far_writer)
                far_writer.close()
        except* (OSError, asyncio.CancelledError):
            pass  # an end of a connection: the two parts see it as one
        finally:
            self._writers.discard(writer)
            self._tasks.discard(task)
            writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(_CHUNK):
            if self._delay_s:
                await asyncio.sleep(self._delay_s)
            await self._flows.wait()
            writer.write(piece)
            await writer.drain()
        await self._flows.wait()
        with contextlib.suppress(OSError):
            writer.write_eof()

    def _cut(self) -> None:
        for writer in self._writers:
            _reset(writer)
        for task in self._tasks:
            task.cancel()

    async def _close(self) -> None:
        self._server.close()
        self._cut()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_PATIENCE_S)

    def _run(self, work: Coroutine[object, object, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_PATIENCE_S)

    def _call(self, call: Callable[[], None]) -> None:
        async def run() -> None:
            call()

        self._run(run())


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close at once with a reset, as a dead machine's neighbour would see it."""
    with contextlib.suppress(OSError, AttributeError):
        sock = writer.get_extra_info("socket")
        if sock is not None and sock.family == socket.AF_INET:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    writer.transport.abort()
