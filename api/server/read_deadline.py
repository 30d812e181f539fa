"""Read deadlines: disconnects clients who do not send the head or the body of a request in time.

Every connection is checked twice a second, which costs less than a timer for each request.
"""

from collections.abc import Iterable

import structlog

from api.errors import RequestTimeout
from api.server.connection_limits import Connection, Phase

# An upload that comes at this rate goes on after its deadline for as long again: 0.8 Mbit/s. Other bodies are bounded
# in size, and soon complete at this rate.
_MIN_BYTES_PER_S = 100_000
# A refused client has this long to read its response before the connection is closed.
_LINGER_S = 2.0

log = structlog.get_logger()


class ReadDeadline:
    """Deadlines in seconds for the head and for the body of a request, and for the next request of a connection."""

    def __init__(self, *, head_s: float, body_s: float, idle_s: float) -> None:
        self._min_progress_bytes = int(body_s * _MIN_BYTES_PER_S)
        self._allowed_s = {Phase.REFUSED: _LINGER_S, Phase.HEAD: head_s, Phase.IDLE: idle_s, Phase.BODY: body_s}

    def check(self, connections: Iterable[Connection], now: float) -> None:
        """End the connections whose deadline has passed; call it often, with every open connection."""
        allowed_s = self._allowed_s
        for one in list(connections):
            deadline_s = allowed_s.get(one.phase)
            if deadline_s is not None and now - one.since >= deadline_s:
                self._end(one, now)

    def _end(self, connection: Connection, now: float) -> None:
        if connection.is_paused:
            connection.since = now  # not the client's delay: the server itself does not read
        elif not connection.is_evictable:
            return
        elif connection.phase is Phase.BODY and connection.take_progress() >= self._min_progress_bytes:
            connection.since = now
        elif connection.phase in (Phase.REFUSED, Phase.IDLE) or not connection.has_sent:
            connection.abort()
        else:
            part = "head" if connection.phase is Phase.HEAD else "body"
            log.info("client_disconnected", reason=f"{part}_deadline", address=connection.address)
            connection.refuse(RequestTimeout(f"The {part} of the request was not sent in time."))
