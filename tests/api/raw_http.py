"""Raw HTTP over a socket, for requests that no HTTP client would send."""

import contextlib
import json
import socket

from tests.api.server import Server

GET = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n"
POST = b"POST /v1/responses HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"


def connect(server: Server) -> socket.socket:
    """A connection to the server."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def exchange(server: Server, data: bytes) -> list[tuple[int, bytes]]:
    """Status and body of every response on one connection, until the server closes it."""
    with connect(server) as connection:
        connection.sendall(data)
        return responses(read_all(connection))


def read_all(connection: socket.socket) -> bytes:
    """Everything that the server sends until it closes, or resets because it did not read all that was sent."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while data := connection.recv(65536):
            received += data
    return received


def read_one(connection: socket.socket) -> tuple[int, bytes]:
    """Status and body of the next response, which has a content length."""
    received = b""
    while True:
        head, separator, body = received.partition(b"\r\n\r\n")
        if separator and len(body) >= _length_of(head):
            return responses(received)[0]
        data = connection.recv(65536)
        assert data, received
        received += data


def responses(received: bytes) -> list[tuple[int, bytes]]:
    """The responses in what a server sent, each with a content length."""
    found = []
    while received:
        head, _, rest = received.partition(b"\r\n\r\n")
        length = _length_of(head)
        found.append((int(head.split(b" ")[1]), rest[:length]))
        received = rest[length:]
    return found


def code_of(body: bytes) -> str:
    """The error code of an error body."""
    error = json.loads(body)["error"]
    assert list(error) == ["message", "type", "param", "code"]
    code: str = error["code"]
    return code


def _length_of(head: bytes) -> int:
    return int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
