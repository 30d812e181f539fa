"""The live wire: one pub/sub connection per process brings every job's token events; each goes to its readers.

Nothing that is published can be missed while the connection stands, and after each new connection every reader is
filled from the log. A reader that hears nothing for a while has its row looked at, so that none waits for ever.
"""

import asyncio
import math
from collections.abc import Coroutine, Iterable
from typing import cast

import structlog
from redis.asyncio import Redis
from redis.asyncio.connection import Connection
from redis.exceptions import RedisError

from api.streaming.backfill import Backfill
from api.streaming.subscription import Subscription
from api.task_cancellation import end
from storage.broker.event_log import TOKENS_CHANNEL, decode_batch, decode_entry
from storage.errors import PlatformError, StorageUnavailable

# A connection that does not even answer a ping for so long is dead, though nobody told us.
_MAX_PING_S = 3.0
_RECONNECT_S = (0.05, 0.1, 0.2, 0.5)

log = structlog.get_logger()


class Relay:
    """Hands published entries to the subscriptions of their jobs."""

    def __init__(
        self,
        listener: Redis,
        backfill: Backfill,
        *,
        tick_s: float = 0.5,
        silence_s: float = 2.0,
        heartbeat_s: float = 15.0,
    ) -> None:
        """listener:    a client for the one connection that only listens
        tick_s:      how often the readers are looked over
        silence_s:   how long a reader may hear nothing before its row is looked at
        heartbeat_s: how long a reader may be given nothing before it is woken
        """
        self._listener = listener
        self._backfill = backfill
        self._tick_s = tick_s
        self.silence_s = silence_s
        self.heartbeat_s = heartbeat_s
        self._readers: dict[str, list[Subscription]] = {}
        self._is_connected = asyncio.Event()
        self._connection: Connection | None = None
        self._heard_at = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._interruption: PlatformError | None = None

    # --- life ---

    async def start(self) -> None:
        """Begin to listen; return without waiting for Redis."""
        self._spawn(self._listen(), "relay-listen")
        self._spawn(self._tick(), "relay-tick")

    async def stop(self) -> None:
        """Listen no more."""
        await end(*self._tasks)
        await self._disconnect()

    def interrupt(self, error: PlatformError) -> None:
        """End every reader with the error, those to come as well; their jobs run on."""
        self._interruption = error
        for readers in self._readers.values():
            for one in readers:
                one.fail(error)

    @property
    def is_connected(self) -> bool:
        """Whether what is published arrives here."""
        return self._is_connected.is_set()

    @property
    def silent_s(self) -> float:
        """Seconds since Redis last said anything; it answers a ping on each tick."""
        return asyncio.get_running_loop().time() - self._heard_at

    async def wait_connected(self, timeout_s: float) -> None:
        """Return when the relay listens; StorageUnavailable when that takes too long."""
        if self._is_connected.is_set():
            return
        try:
            async with asyncio.timeout(timeout_s):
                await self._is_connected.wait()
        except TimeoutError as error:
            raise StorageUnavailable("Redis does not answer.") from error

    # --- readers ---

    @property
    def num_readers(self) -> int:
        """How many streams and calls wait for entries."""
        return sum(map(len, self._readers.values()))

    def subscribe(self, job_id: str, *, is_new: bool = False) -> Subscription:
        """A reader of the job's log from its beginning; give it back with `unsubscribe`.

        is_new: the job has no ticket yet, so that there is no log to read before what is published
        """
        one = Subscription(job_id, now=asyncio.get_running_loop().time(), refill=self._refill)
        self._readers.setdefault(job_id, []).append(one)
        if self._interruption is not None:
            one.fail(self._interruption)
        if not is_new:
            self._fill([one])
        return one

    def unsubscribe(self, one: Subscription) -> None:
        """Forget a reader; one that is not known is no matter."""
        readers = self._readers.get(one.job_id, [])
        if one in readers:
            readers.remove(one)
        if not readers:
            self._readers.pop(one.job_id, None)

    def take(self, blob: bytes) -> None:
        """Hand on one published batch."""
        touched: list[Subscription] = []
        for row in decode_batch(blob):
            readers = self._readers.get(row[0])
            if readers is None:
                continue
            entry = decode_entry(*row[1:])
            for one in readers:
                one.offer(entry)
            touched += readers
        now = asyncio.get_running_loop().time()
        for one in touched:
            one.touched_at = now
            one.notify()
        gaps = [one for one in touched if one.has_gap and not one.is_filling]
        if gaps:
            self._fill(gaps)

    def _refill(self, one: Subscription) -> None:
        self._fill([one])

    def _fill(self, some: Iterable[Subscription]) -> None:
        """Read the logs of some readers; what is published meanwhile waits in them."""
        empty = [one for one in some if not one.is_filling]
        for one in empty:
            one.begin_filling()
        if empty:
            self._spawn(self._backfill.fill(empty), "relay-fill")

    # --- the connection ---

    async def _listen(self) -> None:
        num_failures = 0
        while True:
            try:
                connection = await self._connect()
                num_failures = 0
                while True:
                    await self._hear(connection)
            except (RedisError, OSError) as error:
                if self._is_connected.is_set() or num_failures == 0:
                    log.warning("relay_disconnected", error=str(error))
            except Exception:  # the task's door: one broken message must not end every stream
                log.exception("relay_broken")
            await self._disconnect()
            await asyncio.sleep(_RECONNECT_S[min(num_failures, len(_RECONNECT_S) - 1)])
            num_failures += 1

    async def _connect(self) -> Connection:
        # Not redis-py's PubSub: that connects again by itself, and nobody would know what was missed meanwhile.
        connection = cast(Connection, await self._listener.connection_pool.get_connection())  # type: ignore[no-untyped-call]
        self._connection = connection
        self._heard_at = asyncio.get_running_loop().time()
        await connection.send_command("SUBSCRIBE", TOKENS_CHANNEL)
        # The confirmation: from here on nothing is missed, and before it everything may have been.
        await connection.read_response(push_request=True)
        self._fill(one for readers in self._readers.values() for one in readers)
        self._is_connected.set()
        log.info("relay_connected")
        return connection

    async def _hear(self, connection: Connection) -> None:
        message = await connection.read_response(timeout=math.inf, push_request=True)
        self._heard_at = asyncio.get_running_loop().time()
        if isinstance(message, list) and message[0] == b"message":
            self.take(message[2])

    async def _disconnect(self) -> None:
        self._is_connected.clear()
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)
            await self._listener.connection_pool.release(connection)

    # --- looking after ---

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self._tick_s)
            try:
                await self._look_over()
            except Exception:  # the task's door: without it no stream would be looked after any more
                log.exception("relay_tick_broken")

    async def _look_over(self) -> None:
        now = asyncio.get_running_loop().time()
        await self._ping(now)
        silent: list[Subscription] = []
        for readers in self._readers.values():
            for one in readers:
                if now - one.spoken_at >= self.heartbeat_s:
                    one.spoken_at = now
                    one.wake()
                is_at_rest = not (one.is_ended or one.is_filling or one.is_behind)
                if now - one.touched_at >= self.silence_s and is_at_rest:
                    one.touched_at = now
                    silent.append(one)
        if silent:
            self._spawn(self._backfill.check(silent), "relay-check")

    async def _ping(self, now: float) -> None:
        """Make a dead connection fail, so that `_listen` makes a new one."""
        connection = self._connection
        # Sending on a closed connection would open it again, without its subscription.
        if connection is None or not self.is_connected or not connection.is_connected:
            return
        if now - self._heard_at > _MAX_PING_S:
            log.warning("relay_silent", silent_s=round(now - self._heard_at, 1))
            await connection.disconnect(nowait=True)
            return
        try:
            await connection.send_command("PING")
        except (RedisError, OSError) as error:
            log.warning("relay_ping_failed", error=str(error))

    def _spawn(self, work: Coroutine[object, None, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
