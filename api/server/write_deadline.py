"""Cuts clients who take nothing of what waits for them: uvicorn itself would wait for them for ever."""

import socket
import struct
from collections.abc import Iterable
from typing import Protocol

import structlog

# `tcpi_bytes_acked` in Linux' struct tcp_info (include/uapi/linux/tcp.h): all that the other side ever took.
_BYTES_ACKED = struct.Struct("=Q")
_BYTES_ACKED_AT = 120

log = structlog.get_logger()


class Transport(Protocol):
    """What is asked of a client's transport."""

    def get_write_buffer_size(self) -> int:
        """Bytes that the kernel has no room for."""

    def get_extra_info(self, name: str) -> socket.socket:
        """The `socket`."""

    def abort(self) -> None:
        """Close without waiting for anything."""


class WriteDeadline:
    """Remembers since when clients take nothing; a slow one, who takes a little now and then, is left alone."""

    def __init__(self, deadline_s: float) -> None:
        self._deadline_s = deadline_s
        # What a client whose transport holds bytes had taken when it was last seen to take something, and when.
        self._taken: dict[Transport, tuple[int, float]] = {}

    def look(self, transports: Iterable[Transport], now: float) -> None:
        """Cut those who took nothing for too long; call it often, with every open transport."""
        waiting = [(one, one.get_write_buffer_size()) for one in transports]
        before, self._taken = self._taken, {}
        for one, num_waiting in waiting:
            if num_waiting:
                taken = _taken(one, num_waiting)
                last = before.get(one)
                self._taken[one] = last if last is not None and taken <= last[0] else (taken, now)
        for one, (_, since) in list(self._taken.items()):
            if now - since >= self._deadline_s:
                log.warning("client_cut", silent_s=round(now - since, 1))
                del self._taken[one]
                one.abort()


def _taken(transport: Transport, num_waiting: int) -> int:
    """A number that grows when the client takes something."""
    if not hasattr(socket, "TCP_INFO"):
        return -num_waiting
    client = transport.get_extra_info("socket")
    try:
        told = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_ACKED_AT + _BYTES_ACKED.size)
    except OSError:
        return 0  # it closes under our hands
    return int(_BYTES_ACKED.unpack_from(told, _BYTES_ACKED_AT)[0])
