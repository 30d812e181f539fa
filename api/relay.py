"""From Redis to everyone who waits: one pub/sub connection per process, and gaps filled from log and row."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from storage.contract import EntryKind, LogEntry
from storage.errors import PlatformError, ShuttingDown
from storage.log import TOKENS_CHANNEL, EntryId, decode_batch, decode_entry, log_key, parse_entries, range_start

# A stream that heard nothing for so long looks into its log, and then ever less often.
_FIRST_LOOK_S = 2.0
_MAX_LOOK_S = 16.0
_PING_S = 5.0
_RECONNECT_S = 0.2
_MAX_LOOKS_AT_ONCE = 16

log = structlog.get_logger()
# The entries of a job that has ended, from its row; None while it has not.
ReadEnded = Callable[[str], Awaitable[list[LogEntry] | None]]


class Subscription:
    """One reader of one job's log: every entry once, in order, from the beginning to the END."""

    __slots__ = ("_arrived", "_attempt", "_close", "_held", "_news", "_seq", "is_ended", "is_looking", "job_id",
                 "last_id", "look_after_s", "look_at", "stop_error")  # fmt: skip

    def __init__(self, job_id: str, close: "Callable[[Subscription], None]", now: float) -> None:
        self.job_id = job_id
        self.last_id: EntryId | None = None
        self.is_ended = False
        self.is_looking = False
        self.look_after_s = _FIRST_LOOK_S
        self.look_at = now + _FIRST_LOOK_S
        self.stop_error: PlatformError | None = None
        self._attempt = 0
        self._seq = 0
        self._arrived: list[LogEntry] = []
        self._held: list[LogEntry] = []
        self._news = asyncio.Event()
        self._close = close

    async def read(self) -> list[LogEntry]:
        """The next entries, at least one; nothing follows an END. Raises ShuttingDown when the process ends."""
        while not self._arrived:
            if self.stop_error is not None:
                raise self.stop_error
            self._news.clear()
            await self._news.wait()
        arrived, self._arrived = self._arrived, []
        return arrived

    def close(self) -> None:
        """Hear nothing more."""
        self._close(self)

    def stop(self, error: PlatformError) -> None:
        """Wake the reader with an error, once it has read what arrived."""
        self.stop_error = error
        self._news.set()

    def hear(self, entry: LogEntry, now: float) -> bool:
        """Take a published entry; False when something before it is missing and the log must be read."""
        if self.is_looking:
            self._held.append(entry)
            return True
        self.look_after_s, self.look_at = _FIRST_LOOK_S, now + _FIRST_LOOK_S
        if entry.seq == 0 and entry.attempt > 1 and not self.is_ended:
            # What a dead worker wrote last may never have been heard.
            return False
        return self._take(entry)

    def take_log(self, entries: Iterable[LogEntry]) -> bool:
        """Take what the log holds behind `last_id`; False when the log has a hole."""
        return all(self._take(entry) for entry in entries)

    def take_row(self, entries: Iterable[LogEntry]) -> None:
        """Take the whole job from its row; what was read before is left out."""
        for entry in entries:
            if entry.kind is EntryKind.END or entry.seq > self._seq:
                self._accept(entry)

    def release_held(self, now: float) -> bool:
        """Take what was published while the log was read; False as `hear`."""
        held, self._held = self._held, []
        return all(self.hear(entry, now) for entry in held)

    def _take(self, entry: LogEntry) -> bool:
        if self.is_ended or entry.attempt < self._attempt:
            return True
        if entry.kind is EntryKind.TOKENS:
            if entry.seq <= self._seq:
                return True
            if entry.seq != self._seq + 1:
                return False
            self._seq = entry.seq
        elif entry.kind is EntryKind.END and entry.seq not in (0, self._seq + 1):
            return False
        self._accept(entry)
        return True

    def _accept(self, entry: LogEntry) -> None:
        if self.is_ended:
            return
        self._attempt = entry.attempt
        self.last_id = (entry.attempt, entry.seq)
        self.is_ended = entry.kind is EntryKind.END
        self._arrived.append(entry)
        self._news.set()


class Relay:
    """Delivers logs to subscriptions, live and from where they lie."""

    def __init__(self, redis: Redis, listening: Redis, read_ended: ReadEnded) -> None:
        """
        redis:      for reading logs
        listening:  without a socket timeout, for the one connection that waits
        """
        self._redis = redis
        self._listening = listening
        self._read_ended = read_ended
        self._by_job: dict[str, list[Subscription]] = {}
        self._looks: set[asyncio.Task[None]] = set()
        self._room = asyncio.Semaphore(_MAX_LOOKS_AT_ONCE)
        self._is_listening = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._stop_error: PlatformError | None = None

    async def start(self) -> None:
        """Listen; returns once Redis answered, or after a moment if it is away."""
        self._tasks = [asyncio.create_task(self._listen(), name="relay"), asyncio.create_task(self._watch())]
        try:
            async with asyncio.timeout(2.0):
                await self._is_listening.wait()
        except TimeoutError:
            log.warning("relay_starts_without_redis")

    async def stop(self) -> None:
        """Hear nothing more."""
        tasks = [*self._tasks, *self._looks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def interrupt(self) -> None:
        """End every subscription with ShuttingDown, those to come as well."""
        self._stop_error = ShuttingDown("This server is going down; read on from another one, or from the next.")
        for subscription in [one for many in self._by_job.values() for one in many]:
            subscription.stop(self._stop_error)

    def expect(self, job_id: str) -> Subscription:
        """Register for a job that has no log yet; call it before the job's ticket is sent."""
        now = asyncio.get_running_loop().time()
        subscription = Subscription(job_id, self._remove, now)
        self._by_job.setdefault(job_id, []).append(subscription)
        if self._stop_error is not None:
            subscription.stop(self._stop_error)
        return subscription

    def follow(self, job_id: str) -> Subscription:
        """Register for a job that may be anywhere in its life; what it has said so far is read."""
        subscription = self.expect(job_id)
        self._look(subscription)
        return subscription

    def dispatch(self, blob: bytes) -> None:
        """Hand one published batch to those who wait for its jobs."""
        now = asyncio.get_running_loop().time()
        for row in decode_batch(blob):
            subscriptions = self._by_job.get(row[0])
            if subscriptions:
                entry = decode_entry(*row[1:])
                for subscription in subscriptions:
                    if not subscription.hear(entry, now):
                        self._look(subscription)

    def _remove(self, subscription: Subscription) -> None:
        subscriptions = self._by_job.get(subscription.job_id, [])
        if subscription in subscriptions:
            subscriptions.remove(subscription)
        if not subscriptions:
            self._by_job.pop(subscription.job_id, None)

    async def _listen(self) -> None:
        while True:
            try:
                await self._listen_once()
            except (RedisError, OSError) as error:
                log.warning("relay_lost_redis", error=str(error))
            self._is_listening.clear()
            await asyncio.sleep(_RECONNECT_S)

    async def _listen_once(self) -> None:
        """Dispatch until the connection breaks; begins by reading every gap that the last one left."""
        async with self._listening.pubsub(ignore_subscribe_messages=True) as pubsub:
            await pubsub.subscribe(TOKENS_CHANNEL)
            pinger = asyncio.create_task(_ping(pubsub.ping))
            try:
                for subscription in [one for many in self._by_job.values() for one in many]:
                    self._look(subscription)
                self._is_listening.set()
                while True:
                    message = await pubsub.parse_response(block=True)
                    if message[0] == b"message":
                        self.dispatch(message[2])
            finally:
                pinger.cancel()

    def _look(self, subscription: Subscription) -> None:
        if subscription.is_looking or subscription.is_ended:
            return
        subscription.is_looking = True
        task = asyncio.create_task(self._look_into_log(subscription))
        self._looks.add(task)
        task.add_done_callback(self._looks.discard)

    async def _look_into_log(self, subscription: Subscription) -> None:
        """Read on from the last entry; where the log cannot tell, the row of an ended job can."""
        before = subscription.last_id
        try:
            async with self._room:
                start = range_start(before)
                raw = await self._redis.xrange(log_key(subscription.job_id), min=start)
                is_whole = subscription.take_log(parse_entries(raw))
                if not subscription.is_ended and (not is_whole or subscription.last_id == before):
                    ended = await self._read_ended(subscription.job_id)
                    if ended is not None:
                        subscription.take_row(ended)
        except (RedisError, OSError, PlatformError) as error:
            log.warning("relay_look_failed", error=str(error))
        finally:
            subscription.is_looking = False
            now = asyncio.get_running_loop().time()
            is_whole = subscription.release_held(now)
            # A hole that neither log nor row can fill now is looked at again later, not at every token.
            subscription.look_after_s = 1.0 if not is_whole else min(2 * subscription.look_after_s, _MAX_LOOK_S)
            subscription.look_at = now + subscription.look_after_s

    async def _watch(self) -> None:
        """Look after subscriptions that have heard nothing for long: a lost message, a lost log, an erased job."""
        while True:
            await asyncio.sleep(0.5)
            now = asyncio.get_running_loop().time()
            for subscription in [one for many in self._by_job.values() for one in many]:
                if subscription.look_at <= now:
                    self._look(subscription)


async def _ping(ping: Callable[[], Awaitable[bool]]) -> None:
    """Keep a silent connection known to be alive, so that the kernel notices when it is not."""
    while True:
        await asyncio.sleep(_PING_S)
        await ping()
