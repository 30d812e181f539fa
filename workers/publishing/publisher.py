"""The publisher thread: everything that goes into event logs, in order, one script call a round."""

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import structlog
from redis.exceptions import RedisError

from storage.broker.event_log import MAX_ROWS, LogWriter, Row
from storage.contract import LogEntry

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
    """What a publisher calls while it works, on its own thread.

    on_fenced: these jobs' logs belong to higher attempts
    missing:   rows that Redis lost, from memory: what the logs lack up to now; may raise RedisError
    """

    on_fenced: Callable[[list[str]], None]
    missing: Callable[[], list[Row]]


Work = Callable[[Round], None]


class Publisher:
    """Runs work that adds rows to a round, appends the round, then calls what waits for it.

    Order is kept: rows reach Redis in the order in which their work was put, and while Redis is away, or full, the
    same round is tried again (ids make that harmless). Before anything goes over a new connection, and where Redis
    says that a log is lost, the logs get what they lack. An error that is not Redis' is a bug and goes to `on_fatal`.
    """

    def __init__(
        self,
        open_log: Callable[[], LogWriter],
        read_log: Callable[[str], list[LogEntry]],
        on_fatal: Callable[[BaseException], None],
    ) -> None:
        """open_log: a writer on a connection that is never renewed (`connect_once`); may raise RedisError"""
        self._open_log = open_log
        self._writer: LogWriter | None = None
        self._was_connected = False
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

    def put_call(self, call: Callable[[], object], then: Callable[[], None]) -> None:
        """Run another Redis call after all rows that were put before, retried until Redis answers; then call `then`."""

        def work() -> None:
            self._until_redis_answers(call)
            then()

        self.put_rows(then=work)

    def _run(self) -> None:
        try:
            while self._round():
                pass
        except Exception as error:  # noqa: BLE001 - exception boundary of the thread: without it no token would be published
            self._on_fatal(error)
        finally:
            self._close_log()

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
        fenced = self._until_redis_answers(lambda: self._write(rows))
        if fenced:
            self._watch.on_fenced(fenced)
        return fenced is not None

    def _write(self, rows: list[Row]) -> list[str]:
        """Ids of jobs that other attempts own; all other rows are in, after everything that was lost."""
        if self._writer is None:
            self._writer = self._open_log()
            # Before the first connection there was nothing to lose.
            if self._was_connected:
                self._restore(self._writer)
            self._was_connected = True
        refused = self._writer.append(rows)
        while refused.lost:
            restored = self._restore(self._writer)
            if restored.isdisjoint(refused.lost):
                log.warning("log_entries_dropped", job_ids=refused.lost)
                break
            refused = self._writer.append(rows)
        return refused.fenced

    def _restore(self, writer: LogWriter) -> set[str]:
        """The jobs whose logs lacked something."""
        missing = self._watch.missing()
        writer.append_many(missing)
        if missing:
            log.warning("log_entries_restored", num_entries=len(missing))
        return {row[0] for row in missing}

    def _read(self, job_id: str, then: Callable[[list[LogEntry]], None]) -> None:
        entries = self._until_redis_answers(lambda: self._read_log(job_id))
        if entries is not None:
            then(entries)

    def _until_redis_answers(self, call: Callable[[], T]) -> T | None:
        """The call's value; None when the worker stops before Redis comes back."""
        delay_s = 0.0  # what broke may only have been the connection
        while not self._stopping.is_set():
            try:
                return call()
            except RedisError as error:
                log.warning("redis_away", error=str(error), retry_in_s=delay_s)
                self._close_log()
            self._stopping.wait(delay_s)
            delay_s = min(max(2 * delay_s, FIRST_DELAY_S), MAX_DELAY_S)
        return None

    def _close_log(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
