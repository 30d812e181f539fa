"""The webhook sender: fans events out into deliveries, claims due ones, posts them and settles their outcome.

Any number of senders may run; a claim decides who sends. One poll is at most one short write transaction, and none
when there is nothing to do.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial

import msgspec
import structlog
from sqlalchemy import Connection

from storage.accounts import keys
from storage.database.connections import Database
from storage.database.group_commit import Writer
from storage.errors import PlatformError, StorageUnavailable
from storage.network.url_policy import Policy
from storage.settings import StorageSettings
from storage.webhooks import delivery_queue, events
from storage.webhooks.delivery_queue import Attempt, Destination, DueDestination, Sending
from workers.webhooks.fair_order import allocate_slots
from workers.webhooks.post import Post
from workers.webhooks.verdict import Answer, verdict_of

# Longer than a post can take: after the lease an unsettled delivery has no sender any more.
LEASE = timedelta(seconds=60)
POLL_INTERVAL_S = 0.5
# The shortest pause between two polls; attempts that end meanwhile free several slots for one poll.
_MIN_PAUSE_S = 0.02
ERASE_EVERY_S = 600.0
# With so many due destinations, newly fanned-out deliveries are found by the next poll, outside the transaction.
_MANY_DESTINATIONS = 500

log = structlog.get_logger()


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What one poll read from the rows.

    has_events: whether an event waits for its fan-out
    is_open:    whether no API key exists
    """

    has_events: bool
    due: list[DueDestination]
    is_open: bool


class Busy(msgspec.Struct, frozen=True, kw_only=True):
    """Destinations with deliveries in flight, and destinations whose receivers asked for a pause."""

    in_flight: dict[Destination, int]
    paused: frozenset[Destination]

    def slots(self, due: list[DueDestination]) -> dict[Destination, int]:
        """How many deliveries of each destination to start."""
        return allocate_slots([one for one in due if one.destination not in self.paused], self.in_flight)


class Sender:
    """Polls for due deliveries and sends them; lives on one event loop."""

    def __init__(
        self,
        storage: StorageSettings,
        database: Database,
        writer: Writer,
        post: Post,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        chance: Callable[[], float] = random.random,
    ) -> None:
        """clock: the time of the rows; chance: of the schedule's jitter, [0, 1)."""
        self._storage = storage
        self._database = database
        self._writer = writer
        self._post = post
        self._clock = clock
        self._chance = chance
        # One thread is enough: polls do not overlap.
        self._reader = ThreadPoolExecutor(1, "webhook-rows")
        self._in_flight: dict[asyncio.Task[None], Sending] = {}
        self._paused_until: dict[Destination, datetime] = {}
        self._wake = asyncio.Event()
        self._erase_at = 0.0

    async def run(self, stopping: asyncio.Event, grace_s: float) -> None:
        """Poll and send until `stopping` is set; then attempts in flight have `grace_s`, and the rest is released."""
        stopped = asyncio.create_task(stopping.wait())
        stopped.add_done_callback(lambda _: self._wake.set())
        while not stopping.is_set():
            self._wake.clear()
            try:
                await self.poll()
            except StorageUnavailable as error:
                log.warning("webhooks_wait", error=str(error))
            except Exception:  # exception boundary of the loop: the next poll may succeed
                log.exception("webhooks_broken")
            await asyncio.wait([stopped], timeout=_MIN_PAUSE_S)
            try:
                await asyncio.wait_for(self._wake.wait(), POLL_INTERVAL_S)
            except TimeoutError:
                pass
        await self._leave(grace_s)

    async def poll(self) -> None:
        """Fan out new events, start the due deliveries that have a slot, and erase old events now and then."""
        found = await asyncio.get_running_loop().run_in_executor(self._reader, self._read)
        busy = self._busy()
        if found.has_events or busy.slots(found.due):
            policy = self._storage.webhook_policy(is_open=found.is_open)
            for sending in await self._writer.call(partial(_take, found=found, busy=busy, now=self._clock())):
                self._begin(sending, policy)
        if found.has_events:
            # There may be more events than one poll fans out.
            self._wake.set()
        await self._erase()

    async def finish(self) -> None:
        """Return when no delivery is in flight."""
        while self._in_flight:
            await asyncio.wait(self._in_flight)

    def _read(self) -> Found:
        with self._database.connect() as connection:
            return Found(
                has_events=events.has_new(connection),
                due=delivery_queue.list_due_destinations(connection, self._clock()),
                is_open=self._storage.webhook_loopback and not keys.any_exists(connection),
            )

    def _busy(self) -> "Busy":
        now = self._clock()
        self._paused_until = {one: until for one, until in self._paused_until.items() if until > now}
        in_flight = Counter(sending.destination for sending in self._in_flight.values())
        return Busy(in_flight=in_flight, paused=frozenset(self._paused_until))

    async def _erase(self) -> None:
        if time.monotonic() < self._erase_at:
            return
        before = self._clock() - timedelta(seconds=self._storage.webhook_retention_s)
        num_erased = await self._writer.call(lambda c: events.erase_older(c, before))
        self._erase_at = time.monotonic() + (0 if num_erased else ERASE_EVERY_S)

    def _begin(self, sending: Sending, policy: Policy) -> None:
        task = asyncio.create_task(self._send(sending, policy))
        self._in_flight[task] = sending
        task.add_done_callback(self._on_done)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._in_flight.pop(task, None)
        self._wake.set()

    async def _send(self, sending: Sending, policy: Policy) -> None:
        started_at, begun = self._clock(), time.monotonic()
        try:
            answer = await self._post(sending, policy, started_at)
        except Exception:  # exception boundary of the task: the delivery is retried, a bounded number of times
            log.exception("webhook_broken", delivery_id=sending.delivery_id)
            answer = Answer(error="The platform met an error of its own.")
        attempt = Attempt(
            started_at=started_at,
            latency_ms=round((time.monotonic() - begun) * 1000),
            status_code=answer.status_code,
            error=answer.complaint,
            answer=answer.text,
        )
        await self._settle(sending, answer, attempt)

    async def _settle(self, sending: Sending, answer: Answer, attempt: Attempt) -> None:
        now = self._clock()
        if answer.pause_s:
            until = now + timedelta(seconds=answer.pause_s)
            self._paused_until[sending.destination] = max(until, self._paused_until.get(sending.destination, until))
        verdict = verdict_of(sending, answer, now, self._chance())
        write_log = log.debug if answer.is_success else log.info
        write_log(
            "webhook_attempt",
            delivery_id=sending.delivery_id,
            number=sending.number,
            status=verdict.status,
            status_code=answer.status_code,
            error=answer.complaint,
            latency_ms=attempt.latency_ms,
        )
        try:
            is_disabled = await self._writer.call(lambda c: delivery_queue.settle(c, sending, attempt, verdict, now))
        except PlatformError as error:
            # The database is unavailable, or this process stops. The lease expires, and the event is sent again.
            log.warning("webhook_attempt_lost", delivery_id=sending.delivery_id, error=str(error))
            return
        if is_disabled:
            log.warning("webhook_endpoint_disabled", endpoint_id=sending.endpoint_id)

    async def _leave(self, grace_s: float) -> None:
        self._reader.shutdown(wait=False)
        if self._in_flight:
            await asyncio.wait(self._in_flight, timeout=grace_s)
        left = dict(self._in_flight)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)
            now = self._clock()
            await self._writer.call(lambda c: delivery_queue.give_back(c, list(left.values()), now))


def _take(connection: Connection, found: Found, busy: Busy, now: datetime) -> list[Sending]:
    """Fan out new events, then claim the deliveries to send now; runs on the writer's thread."""
    due = found.due
    if found.has_events and events.fan_out(connection, now) and len(due) < _MANY_DESTINATIONS:
        due = delivery_queue.list_due_destinations(connection, now)
    claim = partial(delivery_queue.claim, connection, now=now, until=now + LEASE)
    return [sending for one, limit in busy.slots(due).items() for sending in claim(one, limit=limit)]
