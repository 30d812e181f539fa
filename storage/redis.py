"""Connections to Redis or Valkey that fail fast and retry nothing: our own loops know what to read again."""

from typing import Any

from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry


def connect(url: str, *, socket_timeout_s: float | None = 5.0) -> Redis:
    """A pool of connections; replies are bytes.

    socket_timeout_s: longest wait for a reply; None for a connection that listens
    """
    # redis-py's own retries hide a reconnect, after which a reader must fill its gap from the log.
    return Redis.from_url(url, socket_timeout=socket_timeout_s, retry=Retry(NoBackoff(), 0), **_connect_timeout(url))


def connect_async(url: str, *, socket_timeout_s: float | None = 5.0, max_connections: int = 64) -> AsyncRedis:
    """As `connect`, for an event loop."""
    return AsyncRedis.from_url(
        url,
        socket_timeout=socket_timeout_s,
        retry=AsyncRetry(NoBackoff(), 0),
        max_connections=max_connections,
        **_connect_timeout(url),
    )


def _connect_timeout(
    url: str,
) -> dict[str, Any]:  # Any: keywords of redis-py's constructors, which its types list one by one
    return {} if url.startswith("unix://") else {"socket_connect_timeout": 2.0}
