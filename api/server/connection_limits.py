"""Caps on open connections: of the process, and of one client address.

At the cap of the process, connections that wait for their client are closed in favour of new ones, so that silent or
half-sent requests never lock out other callers. A connection with a response in progress is never closed.
"""

from collections import OrderedDict
from collections.abc import Iterable
from enum import IntEnum
from typing import Protocol

import structlog

from api.errors import TooManyConnections, TooManyConnectionsOfAddress
from storage.errors import PlatformError

# Younger connections are not evicted: their request may be on its way.
_MIN_EVICTION_AGE_S = 0.1
# A share of the cap is evicted at once, so that evictions and their log lines are rare.
_EVICTED_SHARE = 32

log = structlog.get_logger()


class Phase(IntEnum):
    """What a connection is receiving, in order of eviction.

    REFUSED: nothing more; the client still has to close its side
    HEAD:    the head of a request, of which nothing may have arrived
    IDLE:    nothing; a keep-alive connection between two requests
    BODY:    the body of a request
    ANSWER:  nothing; the request is complete and its response is not
    """

    REFUSED = 0
    HEAD = 1
    IDLE = 2
    BODY = 3
    ANSWER = 4


class Connection(Protocol):
    """The part of a connection that limits and deadlines use.

    since:    when its phase began, by the event loop's clock
    has_sent: whether the client has sent a byte
    """

    phase: Phase
    since: float
    has_sent: bool

    @property
    def address(self) -> str:
        """The client's IP address, empty where it has none."""

    @property
    def is_evictable(self) -> bool:
        """Whether it waits for its client only; False while a response is in progress."""

    @property
    def is_paused(self) -> bool:
        """Whether the server itself has stopped reading."""

    def take_progress(self) -> int:
        """Bytes of the body that the application was given since the last call."""

    def refuse(self, error: PlatformError) -> None:
        """Answer with the error and close."""

    def abort(self) -> None:
        """Close at once, without a response."""


class ConnectionLimits:
    """Counts the connections of one process."""

    def __init__(self, *, max_connections: int, max_per_address: int) -> None:
        """max_per_address: 0 is no cap; callers may share the address of a proxy"""
        self._max_connections = max_connections
        self._max_per_address = max_per_address
        self._connections: set[Connection] = set()
        # Candidates for eviction by phase, in the order in which they began to wait for their clients.
        self._waiting: dict[Phase, OrderedDict[Connection, None]] = {
            phase: OrderedDict() for phase in Phase if phase is not Phase.ANSWER
        }
        self._num_by_address: dict[str, int] = {}

    @property
    def connections(self) -> Iterable[Connection]:
        """All open connections."""
        return self._connections

    def admit(self, connection: Connection, now: float) -> PlatformError | None:
        """Count a new connection; the error to answer with where it is one too many."""
        if len(self._connections) >= self._max_connections:
            self._evict(now)
        is_full = len(self._connections) >= self._max_connections
        self._connections.add(connection)
        self.enter(connection, connection.phase, connection.since)
        address = connection.address
        num_of_address = self._num_by_address.get(address, 0) + 1
        self._num_by_address[address] = num_of_address
        if is_full:
            return TooManyConnections("This server has too many open connections. Please try again.")
        if 0 < self._max_per_address < num_of_address and address:
            return TooManyConnectionsOfAddress("Your address has too many open connections to this server.")
        return None

    def enter(self, connection: Connection, phase: Phase, now: float) -> None:
        """Begin a phase of an open connection; call it also when a response ends in the phase that it is in."""
        if connection not in self._connections:
            return
        if connection.phase is not Phase.ANSWER:
            self._waiting[connection.phase].pop(connection, None)
        connection.phase, connection.since = phase, now
        if phase is not Phase.ANSWER:
            self._waiting[phase][connection] = None

    def release(self, connection: Connection) -> None:
        """Forget a closed connection."""
        if connection not in self._connections:
            return
        self._connections.remove(connection)
        if connection.phase is not Phase.ANSWER:
            self._waiting[connection.phase].pop(connection, None)
        left = self._num_by_address[connection.address] - 1
        if left:
            self._num_by_address[connection.address] = left
        else:
            del self._num_by_address[connection.address]

    def _evict(self, now: float) -> None:
        """Close the oldest candidates, phase by phase, in constant time for each: a candidate is looked at once."""
        latest = now - _MIN_EVICTION_AGE_S
        num_evicted = 1 + self._max_connections // _EVICTED_SHARE
        evicted: list[Connection] = []
        for waiting in self._waiting.values():
            while waiting and len(evicted) < num_evicted:
                oldest = next(iter(waiting))
                if oldest.since > latest:
                    break
                # One whose earlier response is in progress becomes a candidate again when that ends.
                del waiting[oldest]
                if oldest.is_evictable:
                    evicted.append(oldest)
        for one in evicted:
            self.release(one)
            one.abort()
        if evicted:
            log.warning("connections_evicted", num_evicted=len(evicted), num_open=len(self._connections))
