"""Write deadline: disconnects clients who accept none of their pending output. uvicorn itself has no such limit."""

import socket
import struct
from collections.abc import Iterable
from typing import Protocol

import structlog

# `tcpi_bytes_acked` in Linux' struct tcp_info (include/uapi/linux/tcp.h): all bytes that the peer acknowledged.
_BYTES_ACKED = struct.Struct("=Q")
_BYTES_ACKED_AT = 120

log = structlog.get_logger()


class Transport(Protocol):
    """The part of a client's transport that is used here."""

    def get_write_buffer_size(self) -> int:
        """Bytes that the kernel has no room for."""

    def get_extra_info(self, name: str) -> socket.socket:
        """The `socket`."""

    def abort(self) -> None:
        """Close without waiting for anything."""


class WriteDeadline:
    """Tracks since when each client has accepted nothing; a slow client that accepts a little is not disconnected."""

    def __init__(self, deadline_s: float) -> None:
        self._deadline_s = deadline_s
        # For each transport with pending output: bytes acknowledged at its last progress, and the time of that.
        self._progress: dict[Transport, tuple[int, float]] = {}

    def check(self, transports: Iterable[Transport], now: float) -> None:
        """Abort transports without progress for the whole deadline; call it often, with every open transport."""
        pending = [(one, one.get_write_buffer_size()) for one in transports]
        before, self._progress = self._progress, {}
        for one, num_pending in pending:
            if num_pending:
                acked = _num_acked(one, num_pending)
                last = before.get(one)
                self._progress[one] = last if last is not None and acked <= last[0] else (acked, now)
        for one, (_, since) in list(self._progress.items()):
            if now - since >= self._deadline_s:
                log.warning("client_disconnected", reason="write_deadline", idle_s=round(now - since, 1))
                del self._progress[one]
                one.abort()


def _num_acked(transport: Transport, num_pending: int) -> int:
    """A number that grows when the client accepts bytes."""
    if not hasattr(socket, "TCP_INFO"):
        return -num_pending
    sock = transport.get_extra_info("socket")
    try:
        tcp_info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_ACKED_AT + _BYTES_ACKED.size)
    except OSError:
        return 0  # the socket is being closed
    return int(_BYTES_ACKED.unpack_from(tcp_info, _BYTES_ACKED_AT)[0])
