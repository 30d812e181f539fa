"""The event loop's inbox: runs calls from any thread on Celery's own thread.

Not kombu's `call_soon`: Celery's acknowledgements use it too, and a call that is added while the loop runs such calls
waits for the next poll to time out, up to a second (kombu 5.7). A readable pipe makes the loop turn at once.
"""

import os
import queue
from collections.abc import Callable

from kombu.asynchronous import Hub

Call = Callable[[], None]


class EventLoopInbox:
    """Calls that wait for the event loop's thread; a byte in a pipe wakes its poller."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Call] = queue.SimpleQueue()
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)

    def attach(self, event_loop: Hub) -> None:
        """Let the event loop run the calls, those that wait already too, until its next reset."""
        event_loop.add_reader(self._reader, self._run)

    def put(self, call: Call) -> None:
        """Have `call` run on the event loop's thread."""
        self._calls.put(call)
        try:
            os.write(self._writer, b"\0")
        except BlockingIOError:
            # The pipe is full of wake-ups that the event loop has not read; one more is not needed.
            return

    def _run(self) -> None:
        try:
            os.read(self._reader, 65536)
        except BlockingIOError:
            return
        for _ in range(self._calls.qsize()):
            self._calls.get_nowait()()
