"""The pub/sub connection of an API process: one that reconnects by itself, and says when it did.

Not redis-py's PubSub: that reconnects silently, and nobody would know what was missed meanwhile.
"""

import asyncio
import math
from collections.abc import Callable
from typing import cast

import structlog
from redis.asyncio import Redis
from redis.asyncio.connection import Connection
from redis.exceptions import RedisError

from storage.errors import StorageUnavailable

# A connection that does not even answer a ping for so long is dead, though no error said so.
_MAX_PING_S = 3.0
_RECONNECT_S = (0.05, 0.1, 0.2, 0.5)

log = structlog.get_logger()


class ChannelListener:
    """Listens on one channel. Nothing that is published is missed while the connection stands."""

    def __init__(
        self, client: Redis, channel: str, *, on_connect: Callable[[], None], on_message: Callable[[bytes], None]
    ) -> None:
        """client:     a client for the one connection that only listens
        on_connect: called after each connection was made; what was published before may have been missed
        """
        self._client = client
        self._channel = channel
        self._on_connect = on_connect
        self._on_message = on_message
        self._is_connected = asyncio.Event()
        self._connection: Connection | None = None
        self._received_at = 0.0

    @property
    def is_connected(self) -> bool:
        """Whether what is published arrives here."""
        return self._is_connected.is_set()

    @property
    def silent_s(self) -> float:
        """Seconds since Redis last sent anything; it answers each ping."""
        return asyncio.get_running_loop().time() - self._received_at

    async def wait_connected(self, timeout_s: float) -> None:
        """Return when the connection stands; StorageUnavailable when that takes too long."""
        if self._is_connected.is_set():
            return
        try:
            async with asyncio.timeout(timeout_s):
                await self._is_connected.wait()
        except TimeoutError as error:
            raise StorageUnavailable("Redis does not answer.") from error

    async def run(self) -> None:
        """Listen for ever."""
        num_failures = 0
        while True:
            try:
                connection = await self._connect()
                num_failures = 0
                while True:
                    await self._receive(connection)
            except (RedisError, OSError) as error:
                if self._is_connected.is_set() or num_failures == 0:
                    log.warning("relay_disconnected", error=str(error))
            except Exception:  # exception boundary of the task: one broken message must not end every stream
                log.exception("relay_broken")
            await self.disconnect()
            await asyncio.sleep(_RECONNECT_S[min(num_failures, len(_RECONNECT_S) - 1)])
            num_failures += 1

    async def disconnect(self) -> None:
        """Give the connection up."""
        self._is_connected.clear()
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)
            await self._client.connection_pool.release(connection)

    async def ping(self) -> None:
        """Make a dead connection fail, so that `run` makes a new one."""
        connection = self._connection
        # Sending on a closed connection would open it again, without its subscription.
        if connection is None or not self.is_connected or not connection.is_connected:
            return
        if self.silent_s > _MAX_PING_S:
            log.warning("relay_silent", silent_s=round(self.silent_s, 1))
            await connection.disconnect(nowait=True)
            return
        try:
            await connection.send_command("PING")
        except (RedisError, OSError) as error:
            log.warning("relay_ping_failed", error=str(error))

    async def _connect(self) -> Connection:
        connection = cast(Connection, await self._client.connection_pool.get_connection())  # type: ignore[no-untyped-call]
        self._connection = connection
        self._received_at = asyncio.get_running_loop().time()
        await connection.send_command("SUBSCRIBE", self._channel)
        # The confirmation: from here on nothing is missed, and before it everything may have been.
        await connection.read_response(push_request=True)
        self._on_connect()
        self._is_connected.set()
        log.info("relay_connected")
        return connection

    async def _receive(self, connection: Connection) -> None:
        message = await connection.read_response(timeout=math.inf, push_request=True)
        self._received_at = asyncio.get_running_loop().time()
        if isinstance(message, list) and message[0] == b"message":
            self._on_message(message[2])
