"""The addresses of host names, asked of the system in threads for which no process waits at its end."""

import asyncio
import socket
import threading


class Resolver:
    """Asks for addresses, so many at a time.

    A name server that hangs keeps a thread in the system for half a minute, whoever has given up by then. A pool's
    threads are joined when the process ends, and would put that off; these are not.
    """

    def __init__(self, max_threads: int) -> None:
        self._room = asyncio.Semaphore(max_threads)

    async def resolve(self, host: str, port: int) -> list[str]:
        """The addresses that this machine knows of a host, in the order in which to try them; OSError for none."""
        await self._room.acquire()
        question = _Question(asyncio.get_running_loop(), self._room)
        threading.Thread(target=question.ask, args=(host, port), name="resolver", daemon=True).start()
        return await question.answer


class _Question:
    """One that is under way; its place is free again when the system has answered."""

    def __init__(self, loop: asyncio.AbstractEventLoop, room: asyncio.Semaphore) -> None:
        self._loop = loop
        self._room = room
        self.answer: asyncio.Future[list[str]] = loop.create_future()

    def ask(self, host: str, port: int) -> None:
        """Ask and wait; runs in a thread of its own."""
        found: list[str] | Exception
        try:
            entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            found = list(dict.fromkeys(str(entry[4][0]) for entry in entries))
        except Exception as error:  # noqa: BLE001 - the thread's door: whoever asked is told
            found = error
        # A loop that is closed has nobody who waits.
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._tell, found)

    def _tell(self, found: list[str] | Exception) -> None:
        self._room.release()
        if self.answer.done():
            return
        if isinstance(found, Exception):
            self.answer.set_exception(found)
        else:
            self.answer.set_result(found)
