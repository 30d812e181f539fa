"""DNS resolver: asks the system for the addresses of host names, in daemon threads."""

import asyncio
import socket
import threading


class Resolver:
    """Resolves host names, with a limit on concurrent lookups.

    A lookup at a hanging name server blocks its thread for half a minute, also after the caller's timeout. A thread
    pool joins its threads at exit and would delay it; daemon threads do not.
    """

    def __init__(self, max_threads: int) -> None:
        self._semaphore = asyncio.Semaphore(max_threads)

    @property
    def is_full(self) -> bool:
        """Whether the next lookup would have to wait for a thread."""
        return self._semaphore.locked()

    async def resolve(self, host: str, port: int) -> list[str]:
        """The addresses that this machine knows of a host, in the order in which to try them; OSError for none."""
        await self._semaphore.acquire()
        lookup = _Lookup(asyncio.get_running_loop(), self._semaphore)
        threading.Thread(target=lookup.run, args=(host, port), name="resolver", daemon=True).start()
        return await lookup.answer


class _Lookup:
    """One lookup; it releases the semaphore when the system has answered."""

    def __init__(self, loop: asyncio.AbstractEventLoop, semaphore: asyncio.Semaphore) -> None:
        self._loop = loop
        self._semaphore = semaphore
        self.answer: asyncio.Future[list[str]] = loop.create_future()

    def run(self, host: str, port: int) -> None:
        """Ask the system and hand over its answer; runs in a thread of its own."""
        found: list[str] | Exception
        try:
            entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            found = list(dict.fromkeys(str(entry[4][0]) for entry in entries))
        except Exception as error:  # noqa: BLE001 - exception boundary of the thread: the caller gets it
            found = error
        # After the loop was closed no caller waits.
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._finish, found)

    def _finish(self, found: list[str] | Exception) -> None:
        self._semaphore.release()
        if self.answer.done():
            return
        if isinstance(found, Exception):
            self.answer.set_exception(found)
        else:
            self.answer.set_result(found)
