"""The proxy between two parts: it passes on, holds back, delays and cuts."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.drill.proxy import Proxy


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Proxy]:
    """A proxy before a server that says everything again."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "echo.sock"))
    listener.listen()

    def echo(connection: socket.socket) -> None:
        with connection:
            try:
                while piece := connection.recv(100):
                    connection.sendall(piece)
            except OSError:
                pass  # the proxy cut it off

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=echo, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    made = Proxy(tmp_path / "echo.sock")
    made.start()
    yield made
    made.stop()
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


@pytest.fixture
def client(proxy: Proxy) -> Iterator[socket.socket]:
    """A connection through it."""
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=5.0) as connection:
        yield connection


def test_it_passes_on(client: socket.socket) -> None:
    client.sendall(b"hello")

    assert client.recv(5, socket.MSG_WAITALL) == b"hello"


def test_what_is_held_back_comes_later(proxy: Proxy, client: socket.socket) -> None:
    proxy.hold()
    client.sendall(b"late")
    client.settimeout(0.2)
    with pytest.raises(TimeoutError):
        client.recv(4)

    proxy.release()

    client.settimeout(5.0)
    assert client.recv(4, socket.MSG_WAITALL) == b"late"


def test_what_is_cut_is_reset(proxy: Proxy, client: socket.socket) -> None:
    proxy.hold()
    client.sendall(b"lost")
    proxy.cut()
    proxy.release()

    with pytest.raises(ConnectionResetError):
        client.recv(4)
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=5.0) as again:
        again.sendall(b"new")
        assert again.recv(3, socket.MSG_WAITALL) == b"new"
