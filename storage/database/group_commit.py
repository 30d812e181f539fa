"""Group commit: one thread per process gathers what waits to be written and commits it at once.

A commit costs a disk flush however much it holds, so under load a flush is shared by hundreds of callers; alone, a
caller waits for no one.
"""

import asyncio
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

import structlog
from sqlalchemy import Connection, insert
from sqlmodel import SQLModel

from storage.database.connections import Database, is_deadlock, translate
from storage.database.table_definitions import table_of
from storage.errors import ShuttingDown

T = TypeVar("T")
Operation = Callable[[Connection], T]
Values = Mapping[str, object]
# A row to insert: its table and its column values.
Insert = tuple[type[SQLModel], Values]

log = structlog.get_logger()


class Writer:
    """The only road by which a process writes to the database."""

    def __init__(self, database: Database, *, max_batch: int = 512) -> None:
        self._database = database
        self._max_batch = max_batch
        self._waiting: queue.SimpleQueue[_Entry | None] = queue.SimpleQueue()
        self._door = threading.Lock()
        self._is_open = False
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)

    def start(self) -> None:
        """Begin to take operations."""
        self._is_open = True
        self._thread.start()

    def stop(self) -> None:
        """Commit what waits, then end; later calls raise ShuttingDown."""
        with self._door:
            was_open, self._is_open = self._is_open, False
            if was_open:
                self._waiting.put(None)
        if was_open:
            self._thread.join()

    def submit(self, operation: Operation[T], *, on_executed: Callable[[T], None] | None = None) -> Future[T]:
        """A future of what `operation` returns, done after its commit; callbacks run on the writer's thread.

        operation:   may run twice, so it is a function of the connection only; what it raises undoes it alone
        on_executed: called with its value ahead of the commit, which may still fail; again when it runs again
        """
        future: Future[T] = Future()
        self._put(_Entry(future, operation=operation, on_executed=on_executed))
        return future

    def insert(self, *rows: Insert) -> Future[None]:
        """A future that is done when the rows are committed, all or none.

        Neighbouring calls for the same tables and columns travel as one multi-row statement for each table.
        """
        future: Future[None] = Future()
        self._put(_Entry(future, rows=rows))
        return future

    async def call(self, operation: Operation[T]) -> T:
        """What `operation` returns, after its commit; as `submit`, for callers on an event loop."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._put(_Entry(future, operation=operation))
        return await future

    async def add(self, *rows: Insert) -> None:
        """Return when the rows are committed; as `insert`, for callers on an event loop."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._put(_Entry(future, rows=rows))
        await future

    def _put(self, entry: "_Entry") -> None:
        with self._door:
            if not self._is_open:
                raise ShuttingDown("the writer is stopped")
            self._waiting.put(entry)

    def _run(self) -> None:
        is_running = True
        while is_running:
            group = self._take()
            is_running = group[-1] is not None
            entries = [entry for entry in group if entry is not None and entry.begin()]
            try:
                self._write(entries)
            except Exception as error:  # the writer's door: whoever waits must learn of it, and the thread must live
                log.exception("writer_failed", num_operations=len(entries))
                _settle([(entry, None, error) for entry in entries if not entry.is_settled])

    def _take(self) -> list["_Entry | None"]:
        """Everything that waits, at least one entry and at most a batch; None at the end means stop."""
        group = [self._waiting.get()]
        while len(group) < self._max_batch and group[-1] is not None:
            try:
                group.append(self._waiting.get_nowait())
            except queue.Empty:
                break
        return group

    def _write(self, entries: "Sequence[_Entry]") -> None:
        """Commit all in one transaction; where a span fails, what is before it, it, and what is after it part."""
        while entries:
            failed = self._commit(entries)
            if failed is None:
                return
            if len(entries) == 1:
                # The other one has gone on by now.
                again = self._commit(entries) if is_deadlock(failed.error) else failed
                if again is not None:
                    _settle([(entries[0], None, translate(again.error))])
                return
            self._write(entries[: failed.start])
            for entry in entries[failed.start : failed.end]:
                self._write([entry])
            entries = entries[failed.end :]

    def _commit(self, entries: "Sequence[_Entry]") -> "_SpanFailed | None":
        """None when every entry is settled, be it by a commit or because the database is away."""
        results: list[object] = []
        try:
            with self._database.begin() as connection:
                for start, end in _spans(entries):
                    try:
                        results += _execute(connection, entries[start:end])
                    except Exception as error:
                        if connection.invalidated:
                            raise
                        raise _SpanFailed(start, end, error) from error
                for entry, result in zip(entries, results, strict=True):
                    if entry.on_executed is not None:
                        entry.on_executed(result)
        except _SpanFailed as failed:
            return failed
        except Exception as error:  # noqa: BLE001 - begin or commit failed: told to everyone who waits
            _settle([(entry, None, error) for entry in entries])
        else:
            _settle([(entry, result, None) for entry, result in zip(entries, results, strict=True)])
        return None


class _SpanFailed(Exception):
    def __init__(self, start: int, end: int, error: Exception) -> None:
        super().__init__(str(error))
        self.start, self.end, self.error = start, end, error


class _Entry:
    """One thing to write and the future that waits for it; an insert when it has rows, else an operation."""

    __slots__ = ("future", "is_settled", "on_executed", "operation", "rows")

    def __init__(
        self,
        future: Future[Any] | asyncio.Future[Any],  # Any: entries of all results share a group
        *,
        operation: Operation[Any] | None = None,
        on_executed: Callable[[Any], None] | None = None,
        rows: tuple[Insert, ...] = (),
    ) -> None:
        self.future, self.operation, self.rows = future, operation, rows
        self.on_executed = on_executed
        self.is_settled = False

    def begin(self) -> bool:
        """Whether it is still wanted."""
        if isinstance(self.future, Future):
            return self.future.set_running_or_notify_cancel()
        return not self.future.cancelled()


# What came of an entry: its result, or the error.
_Outcome = tuple[_Entry, object, Exception | None]


def _spans(entries: Sequence[_Entry]) -> Iterator[tuple[int, int]]:
    """Bounds of what is executed at once: one operation, or a run of inserts into the same tables and columns."""
    start = 0
    while start < len(entries):
        shape, end = _shape(entries[start]), start + 1
        while shape and end < len(entries) and _shape(entries[end]) == shape:
            end += 1
        yield start, end
        start = end


def _shape(entry: _Entry) -> list[tuple[type[SQLModel], object]]:
    return [(table, values.keys()) for table, values in entry.rows]


def _execute(connection: Connection, span: Sequence[_Entry]) -> list[object]:
    first = span[0]
    if first.operation is not None:
        return [first.operation(connection)]
    for index, (table, _) in enumerate(first.rows):
        connection.execute(insert(table_of(table)), [entry.rows[index][1] for entry in span])
    return [None] * len(span)


def _settle(outcomes: Sequence[_Outcome]) -> None:
    """Tell everyone who waits; an event loop is woken once for all of its own."""
    by_loop: dict[asyncio.AbstractEventLoop, list[_Outcome]] = {}
    for outcome in outcomes:
        entry = outcome[0]
        entry.is_settled = True
        if isinstance(entry.future, Future):
            _tell(outcome)
        else:
            by_loop.setdefault(entry.future.get_loop(), []).append(outcome)
    for loop, own in by_loop.items():
        try:
            loop.call_soon_threadsafe(_tell_all, own)
        except RuntimeError:
            log.warning("writer_loop_closed", num_operations=len(own))


def _tell_all(outcomes: Sequence[_Outcome]) -> None:
    for outcome in outcomes:
        _tell(outcome)


def _tell(outcome: _Outcome) -> None:
    entry, result, error = outcome
    if entry.future.done():
        return
    if error is not None:
        entry.future.set_exception(error)
    else:
        entry.future.set_result(result)
