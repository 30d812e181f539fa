"""One reader of one job's log: takes entries from wherever they come and hands them on in order, once each.

No I/O: the relay offers what was published, `catch_up` what the log or the row holds.
"""

import asyncio
from collections.abc import Callable, Iterable

from storage.broker.event_log import EntryId
from storage.contract import EntryKind, LogEntry
from storage.errors import PlatformError

# The most entries that a reader is given at once, so that other readers are served in between. No more are kept for a
# slow reader: it reads the rest from the log.
_MAX_READY = 512

Refill = Callable[["Subscription"], None]


class Subscription:
    """A job's entries, from the first one on.

    is_ended:   the END was taken; nothing follows
    is_filling: somebody reads the log for it; what is published meanwhile waits
    has_gap:    an entry is missing between what was taken and what came after it
    is_behind:  the reader has so much to read that what follows was left in the log
    touched_at: loop time at which something last came, or was looked for
    spoken_at:  loop time at which the reader was last given something, if only silence
    listener:   called when there is something to `read`, where nobody waits in `next`
    """

    __slots__ = (
        "_attempt",
        "_error",
        "_is_rereading",
        "_is_woken",
        "_last",
        "_max_ready",
        "_ready",
        "_refill",
        "_seq",
        "_waiter",
        "_waiting",
        "has_gap",
        "is_behind",
        "is_closed",
        "is_ended",
        "is_filling",
        "job_id",
        "listener",
        "spoken_at",
        "touched_at",
    )

    def __init__(
        self, job_id: str, *, now: float = 0.0, refill: Refill | None = None, max_ready: int = _MAX_READY
    ) -> None:
        """now:    loop time
        refill: called when the reader has read everything and the log holds more; it makes somebody read that
        """
        self.job_id = job_id
        self._refill = refill
        self._max_ready = max_ready
        self.is_ended = self.is_filling = self.has_gap = self.is_behind = self.is_closed = False
        self.touched_at = self.spoken_at = now
        self._attempt = 0
        self._seq = 0
        self._last: EntryId | None = None
        self._ready: list[LogEntry] = []
        self._waiting: list[LogEntry] = []
        self.listener: Callable[[], None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._is_woken = self._is_rereading = False
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
            await asyncio.sleep(0)  # a turn for the others
        return batch

    def wake(self) -> None:
        """Let the reader look around, with or without entries."""
        self._is_woken = True
        self.notify()

    def notify(self) -> None:
        """Let the reader look for what came, if anything did."""
        if not self.has_news:
            return
        if self.listener is not None:
            self.listener()
        elif self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def close(self) -> None:
        """The reader has gone, or goes."""
        self.is_closed = True
        self.wake()

    def fail(self, error: PlatformError) -> None:
        """Nothing will come any more; the reader gets what is ready, then the error."""
        self._error = error
        self.notify()

    @property
    def is_failed(self) -> bool:
        """Whether the reader gets an error instead of the rest."""
        return self._error is not None

    # --- the relay's side ---

    @property
    def position(self) -> EntryId | None:
        """The entry behind which the log is to be read; None for all of it."""
        return None if self.has_gap else self._last

    def begin_filling(self) -> None:
        """Somebody reads the log behind `position` from now on."""
        self.is_filling = True
        self.is_behind = False
        self._is_rereading = self.has_gap

    def offer(self, entry: LogEntry) -> None:
        """Take an entry that was just published, of which `tell` tells; `has_gap` tells when one before it is missing.

        Behind a gap nothing is taken, and nothing when too much waits: it is all in the log.
        """
        if self.is_filling:
            self._wait(entry)
        elif not self.has_gap and not self.is_behind:
            self._take(entry)

    def take_logged(self, entries: Iterable[LogEntry]) -> None:
        """Take what the log holds behind `position`, in order, up to a gap or as much as may wait."""
        self.has_gap = False
        for entry in entries:
            if not self._take(entry):
                break
        self.notify()

    def finish_filling(self) -> None:
        """Take what was published while the log was read."""
        self.is_filling = self._is_rereading = False
        waiting, self._waiting = self._waiting, []
        if not self.has_gap and not self.is_behind:
            self.take_logged(waiting)
        self._ask_for_more()

    def conclude(self, entries: Iterable[LogEntry]) -> None:
        """Take the rest of an ended job from its row, whose entries know no attempts."""
        self._attempt = 0
        self.has_gap = self.is_behind = False
        for entry in entries:
            if entry.kind is EntryKind.END or entry.seq > self._seq:
                self._hand_on(entry)
        self.notify()

    def _ask_for_more(self) -> None:
        """Have the log read again where the reader has read all that it held."""
        if self.is_behind and not (self.is_filling or self._ready) and self._refill is not None:
            self._refill(self)

    def _wait(self, entry: LogEntry) -> None:
        if len(self._waiting) < self._max_ready:
            self._waiting.append(entry)
        else:
            self.is_behind = True

    def _take(self, entry: LogEntry) -> bool:
        """Whether what follows can be taken too."""
        if self.is_ended or (entry.attempt < self._attempt and not self._is_missed(entry)):
            return True
        if len(self._ready) >= self._max_ready:
            self.is_behind = True
            return False
        if entry.seq > self._seq + 1:
            self.has_gap = True
            return False
        if entry.kind is EntryKind.UNKNOWN:
            # Of a later version: it has a number in the log, and is skipped.
            self._seq = max(self._seq, entry.seq)
        is_known = entry.kind in (EntryKind.TOKENS, EntryKind.UNKNOWN) and entry.seq <= self._seq
        is_known = is_known or (entry.kind is EntryKind.START and entry.attempt == self._attempt)
        if not is_known:
            self._hand_on(entry)
        self._attempt = max(self._attempt, entry.attempt)
        self._last = max(self._last or (0, 0), (entry.attempt, entry.seq))
        return True

    def _is_missed(self, entry: LogEntry) -> bool:
        """Whether the log holds what an earlier attempt wrote and this reader lacked when the next START came."""
        return self._is_rereading and entry.kind is EntryKind.TOKENS and entry.seq == self._seq + 1

    def _hand_on(self, entry: LogEntry) -> None:
        if self.is_ended:
            return
        if entry.kind is EntryKind.TOKENS:
            self._seq = entry.seq
        self.is_ended = entry.kind is EntryKind.END
        self._ready.append(entry)
