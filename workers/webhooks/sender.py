"""Finds what is to be told, and sees to it that each thing is told, one after the other, to whoever wants to hear it.

Any number of senders may run: a claim decides who sends. One look is one short transaction at most, and none where
there is nothing to do.
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
from storage.webhooks.delivery_queue import Attempt, DueLine, Line, Sending
from workers.webhooks.fair_order import next_turns
from workers.webhooks.post import Post
from workers.webhooks.verdict import Answer, verdict_of

# Longer than a post can take: a delivery that is claimed for so long and not settled has no sender any more.
LEASE = timedelta(seconds=60)
LOOK_EVERY_S = 0.5
# Between two looks, however much is to be told: what ends in the meantime makes room for more at once.
_BREATH_S = 0.02
ERASE_EVERY_S = 600.0
# While so many lines wait, what was handed out just now is found by the next look, outside of any transaction.
_MANY_LINES = 500

log = structlog.get_logger()


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What one look at the rows found.

    has_events: whether an event waits to be handed out
    is_open:    whether no API key exists
    """

    has_events: bool
    due: list[DueLine]
    is_open: bool


class Busy(msgspec.Struct, frozen=True, kw_only=True):
    """Lines that have deliveries under way, and lines whose receivers asked for a pause."""

    under_way: dict[Line, int]
    paused: frozenset[Line]

    def turns(self, due: list[DueLine]) -> dict[Line, int]:
        """How many deliveries of each line to begin."""
        return next_turns([one for one in due if one.line not in self.paused], self.under_way)


class Sender:
    """Looks and sends; lives on one event loop."""

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
        # One is enough: a look waits for its rows before the next begins.
        self._reader = ThreadPoolExecutor(1, "webhook-rows")
        self._under_way: dict[asyncio.Task[None], Sending] = {}
        self._paused_until: dict[Line, datetime] = {}
        self._wake = asyncio.Event()
        self._erase_at = 0.0

    async def run(self, stopping: asyncio.Event, grace_s: float) -> None:
        """Look and send until `stopping` is set; what is under way then has `grace_s`, and is given back."""
        stopped = asyncio.create_task(stopping.wait())
        stopped.add_done_callback(lambda _: self._wake.set())
        while not stopping.is_set():
            self._wake.clear()
            try:
                await self.look()
            except StorageUnavailable as error:
                log.warning("webhooks_wait", error=str(error))
            except Exception:  # the loop's door: the next look may find it better, and nobody else looks
                log.exception("webhooks_broken")
            await asyncio.wait([stopped], timeout=_BREATH_S)
            try:
                await asyncio.wait_for(self._wake.wait(), LOOK_EVERY_S)
            except TimeoutError:
                pass
        await self._leave(grace_s)

    async def look(self) -> None:
        """Hand out new events, begin what is due and has a turn, and now and then erase what is old."""
        found = await asyncio.get_running_loop().run_in_executor(self._reader, self._read)
        busy = self._busy()
        if found.has_events or busy.turns(found.due):
            policy = self._storage.webhook_policy(is_open=found.is_open)
            for sending in await self._writer.call(partial(_take, found=found, busy=busy, now=self._clock())):
                self._begin(sending, policy)
        if found.has_events:
            # There may be more than one look hands out.
            self._wake.set()
        await self._erase()

    async def finish(self) -> None:
        """Return when nothing is under way."""
        while self._under_way:
            await asyncio.wait(self._under_way)

    def _read(self) -> Found:
        with self._database.connect() as connection:
            return Found(
                has_events=events.has_new(connection),
                due=delivery_queue.list_due_lines(connection, self._clock()),
                is_open=self._storage.webhook_loopback and not keys.any_exists(connection),
            )

    def _busy(self) -> "Busy":
        now = self._clock()
        self._paused_until = {line: until for line, until in self._paused_until.items() if until > now}
        under_way = Counter(sending.line for sending in self._under_way.values())
        return Busy(under_way=under_way, paused=frozenset(self._paused_until))

    async def _erase(self) -> None:
        if time.monotonic() < self._erase_at:
            return
        before = self._clock() - timedelta(seconds=self._storage.webhook_retention_s)
        num_erased = await self._writer.call(lambda c: events.erase_older(c, before))
        self._erase_at = time.monotonic() + (0 if num_erased else ERASE_EVERY_S)

    def _begin(self, sending: Sending, policy: Policy) -> None:
        task = asyncio.create_task(self._send(sending, policy))
        self._under_way[task] = sending
        task.add_done_callback(self._on_done)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._under_way.pop(task, None)
        self._wake.set()

    async def _send(self, sending: Sending, policy: Policy) -> None:
        started_at, begun = self._clock(), time.monotonic()
        try:
            answer = await self._post(sending, policy, started_at)
        except Exception:  # a task's door: the delivery must be tried again, and not for ever
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
            self._paused_until[sending.line] = max(until, self._paused_until.get(sending.line, until))
        verdict = verdict_of(sending, answer, now, self._chance())
        tell = log.debug if answer.is_success else log.info
        tell(
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
            # The database is away, or this process goes. Its lease ends, and it is sent once more with the same id.
            log.warning("webhook_attempt_lost", delivery_id=sending.delivery_id, error=str(error))
            return
        if is_disabled:
            log.warning("webhook_endpoint_disabled", endpoint_id=sending.endpoint_id)

    async def _leave(self, grace_s: float) -> None:
        self._reader.shutdown(wait=False)
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=grace_s)
        left = dict(self._under_way)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)
            now = self._clock()
            await self._writer.call(lambda c: delivery_queue.give_back(c, list(left.values()), now))


def _take(connection: Connection, found: Found, busy: Busy, now: datetime) -> list[Sending]:
    """What to send now, ours from here on, new events handed out before; runs on the writer's thread."""
    due = found.due
    if found.has_events and events.fan_out(connection, now) and len(due) < _MANY_LINES:
        due = delivery_queue.list_due_lines(connection, now)
    claim = partial(delivery_queue.claim, connection, now=now, until=now + LEASE)
    return [sending for line, limit in busy.turns(due).items() for sending in claim(line, limit=limit)]
