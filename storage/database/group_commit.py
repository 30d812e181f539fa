"""Group commit: one writer thread per process commits all pending writes in one transaction.

A commit costs one disk flush whatever it holds, so under load hundreds of callers share a flush. A single caller does
not wait for others.
"""

import asyncio
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar

import structlog
from sqlalchemy import Connection
from sqlmodel import SQLModel

from storage.database.bulk_insert import BulkInserts, Values
from storage.database.connections import Database, is_deadlock, translate
from storage.database.table_definitions import table_of
from storage.errors import ShuttingDown, StorageUnavailable

T = TypeVar("T")
Operation = Callable[[Connection], T]
# A row to insert: its table and its column values.
Insert = tuple[type[SQLModel], Values]
# Longer queues only form while the database hangs. At 3,000 writes a second they hold three seconds.
_MAX_QUEUED = 10_000

log = structlog.get_logger()


class Writer:
    """The only way in which a process writes to the database.

    Each operation, and each run of inserts that shares its transaction, has a savepoint. An exception rolls back to
    it, so that it neither undoes nor repeats the other writes of the group.
    """

    def __init__(self, database: Database, *, max_batch: int = 512, max_queued: int = _MAX_QUEUED) -> None:
        """max_queued: writes that may wait; further ones fail at once with StorageUnavailable"""
        self._database = database
        self._inserts = BulkInserts()
        self._max_batch = max_batch
        self._max_queued = max_queued
        self._queue: queue.SimpleQueue[_Entry | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._is_open = False
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)

    def start(self) -> None:
        """Begin to take operations."""
        self._is_open = True
        self._thread.start()

    def stop(self) -> None:
        """Commit what is queued, then end; later calls raise ShuttingDown."""
        with self._lock:
            was_open, self._is_open = self._is_open, False
            if was_open:
                self._queue.put(None)
        if was_open:
            self._thread.join()

    def submit(self, operation: Operation[T], *, on_executed: Callable[[T], None] | None = None) -> Future[T]:
        """A future of the operation's result, done after its commit; callbacks run on the writer's thread.

        operation:   uses nothing but the connection, because it runs again after a deadlock. An expected refusal should
                     be a return value; an exception costs a rollback to a savepoint
        on_executed: called with its result before the commit, which may still fail; again when it runs again
        """
        future: Future[T] = Future()
        self._put(_Entry(future, operation=operation, on_executed=on_executed))
        return future

    def insert(self, *rows: Insert) -> Future[None]:
        """A future that is done when the rows are committed, all or none.

        Adjacent calls for the same tables and columns become one multi-row statement for each table.
        """
        future: Future[None] = Future()
        self._put(_Entry(future, rows=rows))
        return future

    async def call(self, operation: Operation[T]) -> T:
        """The operation's result after its commit; as `submit`, for callers on an event loop."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._put(_Entry(future, operation=operation))
        return await future

    def add(self, *rows: Insert) -> asyncio.Future[None]:
        """A future of the running event loop that is done when the rows are committed; as `insert`."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._put(_Entry(future, rows=rows))
        return future

    def _put(self, entry: "_Entry") -> None:
        with self._lock:
            if not self._is_open:
                raise ShuttingDown("the writer is stopped")
            is_full = self._queue.qsize() >= self._max_queued
            if not is_full:
                self._queue.put(entry)
        if is_full:
            _settle([(entry, None, StorageUnavailable("the database is too slow: too many writes are queued"))])

    def _run(self) -> None:
        is_running = True
        while is_running:
            group = self._take()
            is_running = group[-1] is not None
            entries = [entry for entry in group if entry is not None and entry.begin()]
            try:
                self._write(entries)
            except Exception as error:  # exception boundary of the thread: callers get the error, and it goes on
                log.exception("writer_failed", num_operations=len(entries))
                _settle([(entry, None, error) for entry in entries if not entry.is_settled])

    def _take(self) -> list["_Entry | None"]:
        """All queued entries, at least one and at most a batch; None at the end means stop."""
        group = [self._queue.get()]
        while len(group) < self._max_batch and group[-1] is not None:
            try:
                group.append(self._queue.get_nowait())
            except queue.Empty:
                break
        return group

    def _write(self, entries: "Sequence[_Entry]") -> None:
        """Commit all entries in one transaction, then each that lost a deadlock in one of its own."""
        if not entries:
            return
        for entry, _, error in self._commit(entries):
            # The transaction that it deadlocked with has ended by now, or will when ours is committed.
            if error is not None and is_deadlock(error):
                _settle(self._commit([entry]))

    def _commit(self, entries: "Sequence[_Entry]") -> "list[_Outcome]":
        """The outcomes that are not settled yet, which are those of deadlocks; the commit settles the others."""
        spans = list(_spans(entries))
        if len(spans) == 1 and entries[0].operation is None and self._has_inserted(entries):
            return []
        outcomes: list[_Outcome] = []
        try:
            with self._database.begin() as connection:
                for start, end in spans:
                    outcomes += _execute(connection, self._inserts, entries[start:end])
                for entry, result, error in outcomes:
                    if entry.on_executed is not None and error is None:
                        entry.on_executed(result)
        except Exception as error:  # noqa: BLE001 - begin or commit failed, or a rollback: every caller gets the error
            _settle([(entry, None, error) for entry in entries])
            return []
        deadlocks = [one for one in outcomes if one[2] is not None and is_deadlock(one[2])]
        _settle([one for one in outcomes if one[2] is None or not is_deadlock(one[2])])
        return deadlocks

    def _has_inserted(self, entries: "Sequence[_Entry]") -> bool:
        """Whether a transaction of nothing but one run of inserts is over, with all entries settled.

        It needs no savepoint: a failed statement undoes nothing of others. False where one failed; nothing was written
        then, and each is to be tried alone.
        """
        try:
            with self._database.begin() as connection:
                try:
                    results = _results(connection, self._inserts, entries)
                except Exception as error:
                    raise _RolledBack(error) from error
        except _RolledBack:
            return False
        except Exception as error:  # noqa: BLE001 - begin or commit failed: every caller gets the error
            _settle([(entry, None, error) for entry in entries])
        else:
            _settle([(entry, result, None) for entry, result in zip(entries, results, strict=True)])
        return True


class _Entry:
    """A pending write and its future: an insert when it has rows, else an operation."""

    __slots__ = ("columns", "future", "is_settled", "on_executed", "operation", "rows")

    def __init__(
        self,
        future: Future[Any] | asyncio.Future[Any],  # Any: a group has entries of all result types
        *,
        operation: Operation[Any] | None = None,
        on_executed: Callable[[Any], None] | None = None,
        rows: tuple[Insert, ...] = (),
    ) -> None:
        self.future, self.operation, self.rows = future, operation, rows
        # Entries with equal columns are inserted together; an operation has none.
        self.columns = tuple((table, tuple(values)) for table, values in rows)
        self.on_executed = on_executed
        self.is_settled = False

    def begin(self) -> bool:
        """Whether its caller still waits."""
        if isinstance(self.future, Future):
            return self.future.set_running_or_notify_cancel()
        return not self.future.done()


# An entry with its result or its error.
_Outcome = tuple[_Entry, object, Exception | None]


def _spans(entries: Sequence[_Entry]) -> Iterator[tuple[int, int]]:
    """Bounds of the spans of entries that are executed at once: one operation, or inserts of the same columns."""
    start = 0
    while start < len(entries):
        columns, end = entries[start].columns, start + 1
        while columns and end < len(entries) and entries[end].columns == columns:
            end += 1
        yield start, end
        start = end


def _execute(connection: Connection, inserts: BulkInserts, span: Sequence[_Entry]) -> list[_Outcome]:
    """The outcome of each entry; after a failure of several inserts, each is tried alone."""
    try:
        with _savepoint(connection):
            results = _results(connection, inserts, span)
            return [(entry, result, None) for entry, result in zip(span, results, strict=True)]
    except _RolledBack as rolled_back:
        if len(span) == 1:
            return [(span[0], None, rolled_back.error)]
    return [outcome for entry in span for outcome in _execute(connection, inserts, [entry])]


def _results(connection: Connection, inserts: BulkInserts, span: Sequence[_Entry]) -> list[object]:
    first = span[0]
    if first.operation is not None:
        return [first.operation(connection)]
    for index, (table, _) in enumerate(first.rows):
        inserts.execute(connection, table_of(table), [entry.rows[index][1] for entry in span])
    return [None] * len(span)


class _RolledBack(Exception):
    """The error of a block whose writes were undone."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


@contextmanager
def _savepoint(connection: Connection) -> Iterator[None]:
    """A block whose writes alone are undone by an exception, which becomes _RolledBack.

    Another exception than that means that the whole transaction is lost. Plain SQL: SQLAlchemy's own nested
    transactions cost five times as much.
    """
    connection.exec_driver_sql("SAVEPOINT operation")
    try:
        yield
        connection.exec_driver_sql("RELEASE SAVEPOINT operation")
    except Exception as error:
        if connection.invalidated:
            raise
        # Fails where the database itself has rolled the transaction back, as SQLite does when the disk is full.
        connection.exec_driver_sql("ROLLBACK TO SAVEPOINT operation")
        connection.exec_driver_sql("RELEASE SAVEPOINT operation")
        raise _RolledBack(error) from error


def _settle(outcomes: Sequence[_Outcome]) -> None:
    """Set every future; an event loop is woken once for all of its own."""
    by_loop: dict[asyncio.AbstractEventLoop, list[_Outcome]] = {}
    for outcome in outcomes:
        entry = outcome[0]
        entry.is_settled = True
        if isinstance(entry.future, Future):
            _resolve(outcome)
        else:
            by_loop.setdefault(entry.future.get_loop(), []).append(outcome)
    for loop, own in by_loop.items():
        try:
            loop.call_soon_threadsafe(_resolve_all, own)
        except RuntimeError:
            log.warning("writer_loop_closed", num_operations=len(own))


def _resolve_all(outcomes: Sequence[_Outcome]) -> None:
    for outcome in outcomes:
        _resolve(outcome)


def _resolve(outcome: _Outcome) -> None:
    entry, result, error = outcome
    if entry.future.done():
        return
    if error is not None:
        entry.future.set_exception(translate(error))
    else:
        entry.future.set_result(result)
