"""The relay: takes the token events that are published for this process, and gives each to the readers of its job.

A process makes itself a reader of a job when it fills a subscription from the log; from then on the job's entries are
published to the process's own channel (docs/decisions/0032-entries-go-to-those-who-read.md). After each new connection
every subscription is filled again. The row of a job that is silent is checked, so that no stream waits for ever.
"""

import asyncio
from collections.abc import Coroutine, Iterable

import structlog
from redis.asyncio import Redis

from api.streaming.backfill import Backfill
from api.streaming.channel_listener import ChannelListener
from api.streaming.subscription import Subscription
from api.streaming.subscription_states import OPEN, SubscriptionState
from api.task_cancellation import end
from storage.broker.event_log import decode_batch, decode_entry, reader_channel
from storage.errors import PlatformError

_LIVE, _GAP = SubscriptionState.LIVE, SubscriptionState.GAP

log = structlog.get_logger()


class Relay:
    """Hands published entries to the subscriptions of their jobs."""

    def __init__(
        self,
        client: Redis,
        backfill: Backfill,
        *,
        tick_s: float = 0.5,
        silence_s: float = 2.0,
        heartbeat_s: float = 15.0,
    ) -> None:
        """client:      a client for the one connection that only listens
        tick_s:      how often the subscriptions are checked
        silence_s:   how long a subscription may get nothing before its job's row is checked
        heartbeat_s: how long a reader may be given nothing before it is woken
        """
        self.listener = ChannelListener(
            client, reader_channel(backfill.reader), on_connect=self._refill_all, on_message=self.take
        )
        self._backfill = backfill
        self._tick_s = tick_s
        self.silence_s = silence_s
        self.heartbeat_s = heartbeat_s
        self._readers: dict[str, list[Subscription]] = {}
        # Jobs that nobody reads here any more, but whose entries still come.
        self._left: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._interruption: PlatformError | None = None

    async def start(self) -> None:
        """Begin to listen; return without waiting for Redis."""
        self._spawn(self.listener.run(), "relay-listen")
        self._spawn(self._tick(), "relay-tick")

    async def stop(self) -> None:
        """Listen no more."""
        await end(*self._tasks)
        await self.listener.disconnect()

    def interrupt(self, error: PlatformError) -> None:
        """End every reader with the error, those to come as well; their jobs run on."""
        self._interruption = error
        for readers in self._readers.values():
            for one in readers:
                one.fail(error)

    @property
    def is_connected(self) -> bool:
        """Whether what is published arrives here."""
        return self.listener.is_connected

    @property
    def silent_s(self) -> float:
        """Seconds since Redis last sent anything."""
        return self.listener.silent_s

    async def wait_connected(self, timeout_s: float) -> None:
        """Return when the relay listens; StorageUnavailable when that takes too long."""
        await self.listener.wait_connected(timeout_s)

    @property
    def num_readers(self) -> int:
        """How many streams and requests wait for entries."""
        return sum(map(len, self._readers.values()))

    def subscribe(self, job_id: str) -> Subscription:
        """A reader of the job's log from its beginning; give it back with `unsubscribe`."""
        one = Subscription(job_id, now=asyncio.get_running_loop().time(), refill=self._refill)
        self._readers.setdefault(job_id, []).append(one)
        if self._interruption is not None:
            one.fail(self._interruption)
        self._fill([one])
        return one

    def unsubscribe(self, one: Subscription) -> None:
        """Forget a reader; one that is not known is no matter."""
        readers = self._readers.get(one.job_id, [])
        if one in readers:
            readers.remove(one)
        if not readers and self._readers.pop(one.job_id, None) is not None and not one.is_ended:
            self._left.add(one.job_id)

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
        gaps = [one for one in touched if one.state is _GAP]
        if gaps:
            self._fill(gaps)

    def _refill(self, one: Subscription) -> None:
        self._fill([one])

    def _refill_all(self) -> None:
        self._fill(one for readers in self._readers.values() for one in readers)

    def _fill(self, some: Iterable[Subscription]) -> None:
        """Read the logs of some readers; what is published meanwhile waits in them."""
        empty = [one for one in some if one.state in OPEN]
        for one in empty:
            one.begin_filling()
        if empty:
            self._spawn(self._backfill.fill(empty), "relay-fill")

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self._tick_s)
            try:
                await self.listener.ping()
                self._check_silent(asyncio.get_running_loop().time())
                self._leave()
            except Exception:  # exception boundary of the task: without it no stream would be checked any more
                log.exception("relay_tick_broken")

    def _check_silent(self, now: float) -> None:
        silent: list[Subscription] = []
        for readers in self._readers.values():
            for one in readers:
                if now - one.spoken_at >= self.heartbeat_s:
                    one.spoken_at = now
                    one.wake()
                is_waiting = one.is_stored and (one.state is _LIVE or one.state is _GAP)
                if now - one.touched_at >= self.silence_s and is_waiting:
                    one.touched_at = now
                    silent.append(one)
        if silent:
            self._spawn(self._backfill.check(silent), "relay-check")

    def _leave(self) -> None:
        """Let no more be published of jobs that nobody reads here; one that is read again meanwhile stays."""
        left = [job_id for job_id in self._left if job_id not in self._readers]
        self._left.clear()
        if left:
            self._spawn(self._backfill.forget(left), "relay-leave")

    def _spawn(self, work: Coroutine[object, None, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
