"""The publisher thread: everything that goes into event logs, in order, one script call a round."""

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import structlog
from redis.exceptions import RedisError

from storage.contract import LogEntry
from storage.log import LogWriter, Row

# A round stays under this, so that the script call after an outage stays well under Redis' patience.
MAX_ROWS = 2048
FIRST_DELAY_S = 0.05
MAX_DELAY_S = 1.0

log = structlog.get_logger()
T = TypeVar("T")


@dataclass(slots=True)
class Round:
    """What one script call will carry.

    rows:  entries for the logs, in order
    after: called in order once Redis has them
    """

    rows: list[Row] = field(default_factory=list)
    after: list[Callable[[], None]] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """What a publisher asks and tells while it works, on its own thread.

    on_fenced: these jobs' logs belong to higher attempts
    missing:   rows that Redis lost while it was away, from memory; may raise RedisError
    """

    on_fenced: Callable[[list[str]], None]
    missing: Callable[[], list[Row]]


Work = Callable[[Round], None]


class Publisher:
    """Runs work that adds rows to a round, appends the round, then calls what waits for it.

    Order is kept: rows reach Redis in the order in which their work was put, and while Redis is away the same
    round is tried again (ids make that harmless). An error that is not Redis' is a bug and goes to `on_fatal`.
    """

    def __init__(
        self,
        writer: LogWriter,
        read_log: Callable[[str], list[LogEntry]],
        on_fatal: Callable[[BaseException], None],
    ) -> None:
        self._writer = writer
        self._read_log = read_log
        self._on_fatal = on_fatal
        self._watch: Watch
        self._inbox: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)

    def start(self, watch: Watch) -> None:
        """Begin to publish."""
        self._watch = watch
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Publish what waits, for at most `timeout_s`, and end."""
        self._inbox.put(None)
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        self._stopping.set()

    def put(self, work: Work) -> None:
        """Hand over work; it runs on the publisher's thread."""
        self._inbox.put(work)

    def put_rows(self, *rows: Row, then: Callable[[], None] | None = None) -> None:
        """Append rows; `then` is called on the publisher's thread once Redis has them."""

        def work(batch: Round) -> None:
            batch.rows.extend(rows)
            if then is not None:
                batch.after.append(then)

        self._inbox.put(work)

    def put_row_and_read(self, row: Row, then: Callable[[list[LogEntry]], None]) -> None:
        """Append a row, then read its job's whole log."""
        self.put_rows(row, then=lambda: self._read(row[0], then))

    def _run(self) -> None:
        try:
            while self._round():
                pass
        except Exception as error:  # noqa: BLE001 - the thread's door: without it the worker would work for nobody
            self._on_fatal(error)

    def _round(self) -> bool:
        """Collect, append and follow up once; False when there is nothing more to come."""
        batch = Round()
        goes_on = self._collect(batch)
        if batch.rows and not self._append(batch.rows):
            return False
        for then in batch.after:
            then()
        return goes_on

    def _collect(self, batch: Round) -> bool:
        """Run what waits, at least one piece of work; False when the end is reached."""
        work = self._inbox.get()
        while work is not None:
            work(batch)
            if len(batch.rows) >= MAX_ROWS:
                return True
            try:
                work = self._inbox.get_nowait()
            except queue.Empty:
                return True
        return False

    def _append(self, rows: list[Row]) -> bool:
        """Whether Redis has the rows; False when the worker stops first."""
        fenced = self._until_redis_answers(lambda: self._writer.append(rows), again=lambda: self._append_again(rows))
        if fenced:
            self._watch.on_fenced(fenced)
        return fenced is not None

    def _append_again(self, rows: list[Row]) -> list[str]:
        """Append after an outage; a Redis that came back may have lost the last second."""
        missing = self._watch.missing()
        if missing:
            log.warning("log_entries_restored", num_entries=len(missing))
        for start in range(0, len(missing), MAX_ROWS):
            self._writer.append(missing[start : start + MAX_ROWS])
        return self._writer.append(rows)

    def _read(self, job_id: str, then: Callable[[list[LogEntry]], None]) -> None:
        entries = self._until_redis_answers(lambda: self._read_log(job_id))
        if entries is not None:
            then(entries)

    def _until_redis_answers(self, call: Callable[[], T], again: Callable[[], T] | None = None) -> T | None:
        """The call's value; None when the worker stops before Redis comes back."""
        delay_s = FIRST_DELAY_S
        while not self._stopping.is_set():
            try:
                return call()
            except RedisError as error:
                log.warning("redis_away", error=str(error), retry_in_s=delay_s)
            call = again or call
            self._stopping.wait(delay_s)
            delay_s = min(2 * delay_s, MAX_DELAY_S)
        return None
