"""A way onto Celery's own thread from any other.

Not `hub.call_soon`: Celery's acknowledgements are themselves put off with it, and what is put off while the hub runs
such calls waits for the next poll to time out, up to a second (kombu 5.7). Calls that come in as an event of the
poller are followed by a new turn at once.
"""

import os
import queue
from collections.abc import Callable

from kombu.asynchronous import Hub

Call = Callable[[], None]


class HubInbox:
    """Calls that wait for the hub's thread; a byte in a pipe wakes its poller."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Call] = queue.SimpleQueue()
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)

    def attach(self, hub: Hub) -> None:
        """Let the hub run the calls, from now until its next reset; those that wait already too."""
        hub.add_reader(self._reader, self._run)

    def put(self, call: Call) -> None:
        """Have `call` run on the hub's thread."""
        self._calls.put(call)
        try:
            os.write(self._writer, b"\0")
        except BlockingIOError:
            # The pipe is full of wake-ups that the hub has not seen: one more says nothing new.
            return

    def _run(self) -> None:
        try:
            os.read(self._reader, 65536)
        except BlockingIOError:
            return
        for _ in range(self._calls.qsize()):
            self._calls.get_nowait()()
