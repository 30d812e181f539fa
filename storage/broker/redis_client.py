"""Redis (or Valkey) clients that fail fast and never retry: the callers know what has to be read again."""

import socket
from typing import Any

from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.connection import Connection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry

# TCP keepalive. A network that drops packets closes no connection, and the kernel's default probes only after two
# hours; a connection that only reads, as Celery's does, would wait for so long. macOS lacks some of these options.
KEEPALIVE: dict[int, int] = {
    getattr(socket, name): value
    for name, value in (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 2), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 10_000))
    if hasattr(socket, name)
}


def connect(url: str, *, socket_timeout_s: float | None = 5.0) -> Redis:
    """A pool of connections; replies are bytes.

    socket_timeout_s: longest wait for a reply; None for a connection that listens
    """
    # redis-py's own retries hide a reconnect, after which a reader must fill its gap from the log.
    return Redis.from_url(url, socket_timeout=socket_timeout_s, retry=Retry(NoBackoff(), 0), **_tcp_options(url))


def connect_once(url: str, *, socket_timeout_s: float | None = 5.0) -> Redis:
    """A client of one connection, which is open now; once that is lost, every command raises RedisError.

    What was true of Redis when it was opened is true for as long as it works: a Redis that comes back without its
    last second, or without anything, is another connection.
    """
    return Redis.from_url(
        url,
        socket_timeout=socket_timeout_s,
        retry=Retry(NoBackoff(), 0),
        single_connection_client=True,
        redis_connect_func=_Once(),
        **_tcp_options(url),
    )


class _Once:
    """Allows one connection only: redis-py's clients and pools reconnect silently."""

    def __init__(self) -> None:
        self._is_made = False

    def __call__(self, connection: Connection) -> None:
        if self._is_made:
            raise RedisConnectionError("the connection is lost")
        self._is_made = True
        connection.on_connect()  # type: ignore[no-untyped-call]  # redis-py


def connect_async(url: str, *, socket_timeout_s: float | None = 5.0, max_connections: int = 64) -> AsyncRedis:
    """As `connect`, for an event loop."""
    return AsyncRedis.from_url(
        url,
        socket_timeout=socket_timeout_s,
        retry=AsyncRetry(NoBackoff(), 0),
        max_connections=max_connections,
        **_tcp_options(url),
    )


def _tcp_options(
    url: str,
) -> dict[str, Any]:  # Any: keywords of redis-py's constructors, which its types list one by one
    if url.startswith("unix://"):
        return {}
    return {"socket_connect_timeout": 2.0, "socket_keepalive": True, "socket_keepalive_options": KEEPALIVE}
