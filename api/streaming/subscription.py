"""A subscription to one job's log: it gives entries to one reader, in order and once each.

No I/O: the relay offers published entries, the backfill gives what the log or the row holds. What a subscription does
with them depends on its state (`subscription_states.py`).
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence

from api.streaming.subscription_states import LEGAL, OPEN, SubscriptionState
from storage.broker.event_log import EntryId
from storage.contract import EntryKind, LogEntry
from storage.errors import PlatformError

# The most entries that a reader is given at once, so that other readers are served in between. No more are kept for a
# slow reader: it reads the rest from the log.
_MAX_READY = 512

# Python 3.11 looks a member of an enum up in a dictionary each time; these are needed for every token.
_LIVE, _GAP, _BEHIND = SubscriptionState.LIVE, SubscriptionState.GAP, SubscriptionState.BEHIND
_FILLING, _REREADING = SubscriptionState.FILLING, SubscriptionState.REREADING
_ENDED, _FAILED, _CLOSED = SubscriptionState.ENDED, SubscriptionState.FAILED, SubscriptionState.CLOSED
_START, _TOKENS, _END, _UNKNOWN = EntryKind.START, EntryKind.TOKENS, EntryKind.END, EntryKind.UNKNOWN

Refill = Callable[["Subscription"], None]


class Subscription:
    """A job's entries, from the first one on.

    state:      what it does with entries
    touched_at: loop time at which an entry last came, or the job's row was checked
    spoken_at:  loop time at which the reader last got something, a heartbeat included
    listener:   called when there is something to `read`, where nobody waits in `next`
    is_stored:  whether the job has a row; without one it is being accepted, and not erased
    """

    __slots__ = (
        "_after_filling",
        "_attempt",
        "_error",
        "_is_woken",
        "_last",
        "_max_ready",
        "_ready",
        "_refill",
        "_seq",
        "_waiter",
        "_waiting",
        "is_stored",
        "job_id",
        "listener",
        "spoken_at",
        "state",
        "touched_at",
    )

    def __init__(
        self, job_id: str, *, now: float = 0.0, refill: Refill | None = None, max_ready: int = _MAX_READY
    ) -> None:
        """now:    loop time
        refill: called when the reader has read everything and the log holds more; it has the log read
        """
        self.job_id = job_id
        self.is_stored = True
        self.state = _LIVE
        # The state that follows when the log was read.
        self._after_filling = _LIVE
        self._refill = refill
        self._max_ready = max_ready
        self.touched_at = self.spoken_at = now
        self._attempt = 0
        self._seq = 0
        self._last: EntryId | None = None
        self._ready: list[LogEntry] = []
        self._waiting: list[LogEntry] = []
        self.listener: Callable[[], None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._is_woken = False
        self._error: PlatformError | None = None

    # --- the reader's side ---

    @property
    def has_news(self) -> bool:
        """Whether `read` has something to give, or the reader was woken for another reason."""
        return bool(self._ready) or self._is_woken or self._error is not None

    def read(self) -> list[LogEntry]:
        """The entries that came since the last call, as many as are given at once; raises what `fail` was given."""
        self._is_woken = False
        if not self._ready and self._error is not None:
            raise self._error
        batch, self._ready = self._ready[:_MAX_READY], self._ready[_MAX_READY:]
        self._ask_for_more()
        return batch

    async def next(self) -> list[LogEntry]:
        """As `read`, waiting for at least one entry; none when it was woken for another reason: silence, a deadline,
        or `close`."""
        if not self.has_news:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        batch = self.read()
        if self._ready:
            await asyncio.sleep(0)  # other readers are served in between
        return batch

    def wake(self) -> None:
        """Wake the reader, with or without entries."""
        self._is_woken = True
        self.notify()

    def notify(self) -> None:
        """Wake the reader if there is something to read."""
        if not self.has_news:
            return
        if self.listener is not None:
            self.listener()
        elif self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def close(self) -> None:
        """Take nothing more: the reader has gone."""
        if self.state is not _CLOSED:
            self._move(_CLOSED)
        self.wake()

    def fail(self, error: PlatformError) -> None:
        """Take nothing more: the reader gets what is ready, then the error. An END that was taken stays the end."""
        if self.state in OPEN or self.is_filling:
            self._move(_FAILED)
            self._error = error
        self.notify()

    # --- the relay's side ---

    @property
    def is_ended(self) -> bool:
        """Whether the END was taken."""
        return self.state is _ENDED

    @property
    def is_filling(self) -> bool:
        """Whether the log is being read."""
        return self.state is _FILLING or self.state is _REREADING

    @property
    def position(self) -> EntryId | None:
        """The entry behind which the log is to be read; None for all of it."""
        return None if self.state is _GAP or self.state is _REREADING else self._last

    def begin_filling(self) -> None:
        """Keep published entries from now on: the log is read behind `position`. Nothing in a final state."""
        if self.state in OPEN:
            self._after_filling = _LIVE
            self._move(_REREADING if self.state is _GAP else _FILLING)

    def offer(self, entry: LogEntry) -> None:
        """Take an entry that was just published; `notify` then wakes the reader. A missing entry makes it a GAP.

        In the states GAP and BEHIND the entry is left in the log.
        """
        if self.state is _LIVE:
            self._take(entry)
        elif self.is_filling:
            if len(self._waiting) < self._max_ready:
                self._waiting.append(entry)
            else:
                self._after_filling = _BEHIND

    def take_logged(self, entries: Iterable[LogEntry]) -> bool:
        """Whether more can be taken after what the log holds behind `position`, in order: not behind a gap or the END,
        nor when the reader has too much to read."""
        if self.is_filling and self._after_filling is _GAP:
            self._after_filling = _LIVE
        is_taking = self.state is _LIVE or self.is_filling
        for entry in entries:
            is_taking = is_taking and self._take(entry)
            if not is_taking:
                break
        self.notify()
        return is_taking and self._after_filling is not _BEHIND

    def finish_filling(self, *, is_unread: bool = False) -> None:
        """Take what was published while the log was read.

        is_unread: the log could not be read to its end; a later filling begins anew
        """
        waiting, self._waiting = self._waiting, []
        if self.is_filling:
            self._move(_GAP if is_unread else self._after_filling)
            self._after_filling = _LIVE
        if self.state is _LIVE:
            self.take_logged(waiting)
        self._ask_for_more()

    def conclude(self, entries: Sequence[LogEntry]) -> None:
        """Take the rest of an ended job from its row, whose entries have no attempts; nothing where there are none."""
        if entries and (self.state in OPEN or self.is_filling):
            self._attempt = 0
            for entry in entries:
                if entry.kind is _END or (entry.seq > self._seq and not self.is_ended):
                    self._hand_on(entry)
        self.notify()

    def _move(self, target: SubscriptionState) -> None:
        assert target in LEGAL[self.state], f"{self.state} to {target}"
        self.state = target

    def _ask_for_more(self) -> None:
        """Have the log read again where the reader has read all that was ready."""
        if self.state is _BEHIND and not self._ready and self._refill is not None:
            self._refill(self)

    def _take(self, entry: LogEntry) -> bool:
        """Whether what follows can be taken too."""
        if entry.attempt < self._attempt:
            # While the log is read again: an entry of an earlier attempt that was lacking when the next START came.
            is_missed = self.state is _REREADING and entry.kind is _TOKENS and entry.seq == self._seq + 1
            if not is_missed:
                return True
        is_full = len(self._ready) >= self._max_ready
        if is_full or entry.seq > self._seq + 1:
            self._after_filling = _BEHIND if is_full else _GAP
            if self.state is _LIVE:
                self._move(self._after_filling)
            return False
        kind = entry.kind
        if kind is _UNKNOWN:
            # Of a later version: it has a number in the log, and is skipped.
            self._seq = max(self._seq, entry.seq)
        is_known = (kind is _TOKENS or kind is _UNKNOWN) and entry.seq <= self._seq
        is_known = is_known or (kind is _START and entry.attempt == self._attempt)
        if not is_known:
            self._hand_on(entry)
        self._attempt = max(self._attempt, entry.attempt)
        self._last = max(self._last or (0, 0), (entry.attempt, entry.seq))
        return self.state is not _ENDED

    def _hand_on(self, entry: LogEntry) -> None:
        if entry.kind is _TOKENS:
            self._seq = entry.seq
        elif entry.kind is _END:
            self._move(_ENDED)
        self._ready.append(entry)
