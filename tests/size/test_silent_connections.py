"""1,500 connections that say nothing, half a head or half a body, beside callers who want something."""

import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.size.client import Client
from tests.size.conftest import MakeRedis
from tests.size.figures import Figure, Figures, interleaved_p50_s
from tests.size.processes import Api, running_api
from tests.size.stocks import ACCEPT, fill

pytestmark = [pytest.mark.at_size, pytest.mark.timeout(600)]

NUM_SILENT = 1_500
MOST = 1.3
# What each third of them has sent.
BEGINNINGS = (
    b"",
    b"POST /v1/responses HTTP/1.1\r\nhost: 127.0.0.1\r\nx-never",
    b"POST /v1/responses HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 100000\r\n\r\n{",
)


@pytest.fixture
def _many_files() -> Iterator[None]:
    """This process holds the other ends of the connections."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, before[1]), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@contextmanager
def silent(port: int, count: int) -> Iterator[None]:
    """So many connections that send no more; those that the server ends are opened again by nobody."""
    connections = []
    for number in range(count):
        connection = socket.create_connection(("127.0.0.1", port), timeout=30)
        connection.sendall(BEGINNINGS[number % len(BEGINNINGS)])
        connections.append(connection)
    try:
        yield
    finally:
        for connection in connections:
            connection.close()


@pytest.mark.usefixtures("_many_files")
def test_silent_connections_keep_nobody_waiting(sqlite_url: str, make_redis: MakeRedis, figures: Figures) -> None:
    redis_url = make_redis()
    fill(sqlite_url, redis_url, stored=2, queued=1)

    def accept(api: Api) -> None:
        # As new callers come: each on a connection of its own.
        with Client(api.port) as client:
            assert client.post("/v1/responses", ACCEPT).status == 200

    # Two processes side by side, so that other load on the machine slows both. The soft limit is that of most systems.
    with (
        running_api(sqlite_url, redis_url, num_files=1024) as quiet,
        running_api(sqlite_url, redis_url, num_files=1024) as disturbed,
        silent(disturbed.port, NUM_SILENT),
    ):
        quiet_s, beside_s = interleaved_p50_s(
            [lambda number: accept(quiet), lambda number: accept(disturbed)], rounds=30, calls=10
        )

    figures.check(
        Figure(
            what=f"accept on a new connection, p50 beside {NUM_SILENT:,} silent or half-sent ones",
            seen=beside_s / quiet_s,
            most=MOST,
            note=f"{1e3 * quiet_s:.2f} and {1e3 * beside_s:.2f} ms",
        )
    )
