"""Connections to Redis over a network ask soon whether the other side is still there."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.broker import celery_queue
from storage.broker.redis_client import KEEPALIVE, connect, connect_async
from tests.drill.proxy import Proxy

pytestmark = pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the system does not know it")


@pytest.fixture
def tcp_url(redis_server_url: str) -> Iterator[str]:
    """The server of the tests, which listens at a path, over TCP."""
    proxy = Proxy(Path(redis_server_url.removeprefix("unix://")))
    proxy.start()
    yield f"redis://127.0.0.1:{proxy.port}/0"
    proxy.stop()


def _asks_soon(connection: socket.socket) -> bool:
    is_on = connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) != 0
    return is_on and all(connection.getsockopt(socket.IPPROTO_TCP, name) == value for name, value in KEEPALIVE.items())


def test_a_connection_asks(tcp_url: str) -> None:
    with connect(tcp_url) as client:
        connection = client.connection_pool.get_connection()
        connection.connect()
        assert _asks_soon(connection._sock)
        connection.disconnect()


async def test_a_connection_of_an_event_loop_asks(tcp_url: str) -> None:
    async with connect_async(tcp_url) as client:
        connection = await client.connection_pool.get_connection()  # type: ignore[no-untyped-call]  # redis-py
        assert _asks_soon(connection._writer.get_extra_info("socket"))
        await connection.disconnect()


def test_celery_asks(tcp_url: str) -> None:
    with celery_queue.create_celery(tcp_url).connection_for_read() as broker:
        connection = broker.default_channel.client.connection_pool.get_connection()
        connection.connect()
        assert _asks_soon(connection._sock)
        connection.disconnect()
