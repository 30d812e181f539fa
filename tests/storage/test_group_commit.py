"""Group commit: durable before the result, in order, and an exception affects one operation."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Connection, delete, event, func, select, text
from sqlalchemy.exc import IntegrityError

from storage.database.connections import Database
from storage.database.group_commit import Writer
from storage.database.table_definitions import table_of
from storage.errors import JobNotFound, ShuttingDown, StorageUnavailable
from storage.fleet.tables import Holder

_holder = table_of(Holder)


def _values(name: str) -> dict[str, object]:
    return {"name": name, "worker_id": "w", "beat": 0}


def _names(database: Database) -> list[str]:
    with database.connect() as c:
        return list(c.execute(select(_holder.c.name).order_by(_holder.c.name)).scalars())


class _Gate:
    """Holds the writer inside an operation, so that what comes meanwhile is one group."""

    def __init__(self, writer: Writer) -> None:
        self._entered, self._open = threading.Event(), threading.Event()
        self.done = writer.submit(self._wait)
        assert self._entered.wait(5)

    def _wait(self, c: Connection) -> None:
        self._entered.set()
        assert self._open.wait(5)

    def open(self) -> None:
        self._open.set()
        self.done.result(5)


def test_a_row_is_committed_when_its_future_is_done(database: Database, writer: Writer) -> None:
    writer.insert((Holder, _values("a"))).result(5)
    assert _names(database) == ["a"]


def test_an_operation_returns_its_value_and_sees_what_came_before(writer: Writer) -> None:
    gate = _Gate(writer)
    writer.insert((Holder, _values("a")))
    writer.insert((Holder, _values("b")))
    count = writer.submit(lambda c: c.execute(select(func.count()).select_from(_holder)).scalar_one())
    writer.submit(lambda c: c.execute(delete(_holder)))
    later = writer.submit(lambda c: c.execute(select(func.count()).select_from(_holder)).scalar_one())
    gate.open()

    assert count.result(5) == 2
    assert later.result(5) == 0


def test_one_failing_operation_fails_alone(database: Database, writer: Writer) -> None:
    def write_and_raise(c: Connection) -> None:
        c.execute(_holder.insert().values(_values("half")))
        raise JobNotFound("no such job")

    gate = _Gate(writer)
    before = [writer.insert((Holder, _values(f"before{i}"))) for i in range(3)]
    raising = writer.submit(write_and_raise)
    broken: Future[object] = writer.submit(lambda c: c.execute(text("SELECT nonsense FROM nowhere")))
    doubled = [writer.insert((Holder, _values("same"))) for _ in range(2)]
    after = writer.submit(lambda c: c.execute(_holder.insert().values(_values("z")).returning(_holder.c.name)).scalar())
    gate.open()

    for future in before:
        assert future.result(5) is None
    with pytest.raises(JobNotFound, match="no such job"):
        raising.result(5)
    assert broken.exception(5) is not None
    assert doubled[0].result(5) is None
    with pytest.raises(IntegrityError):
        doubled[1].result(5)
    assert after.result(5) == "z"
    assert _names(database) == ["before0", "before1", "before2", "same", "z"]


def test_failing_operations_neither_undo_the_group_nor_repeat_an_operation(database: Database, writer: Writer) -> None:
    commits, runs = [], []
    event.listen(database._engine, "commit", commits.append)

    def refuse(c: Connection) -> None:
        runs.append("refuse")
        c.execute(_holder.insert().values(_values("half")))
        raise JobNotFound("no such job")

    def read(c: Connection) -> int:
        runs.append("read")
        return c.execute(select(func.count()).select_from(_holder)).scalar_one()

    gate = _Gate(writer)
    futures: list[Future[object]] = []
    for index in range(50):
        futures.append(writer.insert((Holder, _values(f"{index:03}"))))  # type: ignore[arg-type]  # a result is an object
        futures.append(writer.submit(refuse))  # type: ignore[arg-type]
        futures.append(writer.submit(read))  # type: ignore[arg-type]
    gate.open()

    outcomes = [future.exception(5) or future.result(5) for future in futures]
    assert outcomes[::3] == [None] * 50
    assert all(isinstance(one, JobNotFound) for one in outcomes[1::3])
    assert outcomes[2::3] == list(range(1, 51))
    assert runs == ["refuse", "read"] * 50
    assert len(commits) == 2, "the gate's and the group's"
    assert _names(database) == [f"{index:03}" for index in range(50)]


def test_a_full_queue_refuses_at_once(database: Database) -> None:
    writer = Writer(database, max_queued=10)
    writer.start()
    gate = _Gate(writer)
    accepted = [writer.insert((Holder, _values(f"{index:02}"))) for index in range(10)]
    refused = writer.insert((Holder, _values("late")))

    assert isinstance(refused.exception(0), StorageUnavailable)
    gate.open()
    assert [future.result(5) for future in accepted] == [None] * 10
    writer.insert((Holder, _values("later"))).result(5)
    writer.stop()
    assert "late" not in _names(database)


def test_inserts_alone_need_no_savepoint_and_one_that_fails_fails_alone(database: Database, writer: Writer) -> None:
    statements: list[str] = []
    event.listen(database._engine, "before_cursor_execute", lambda c, cursor, sql, *_: statements.append(sql))
    gate = _Gate(writer)
    futures = [writer.insert((Holder, _values(name))) for name in ("a", "b", "c")]
    statements.clear()
    gate.open()
    for future in futures:
        assert future.result(5) is None
    # The gate's own savepoint is released.
    assert [sql for sql in statements if "SAVEPOINT" in sql] == ["RELEASE SAVEPOINT operation"]

    gate = _Gate(writer)
    futures = [writer.insert((Holder, _values(name))) for name in ("d", "a", "e")]
    gate.open()

    assert futures[0].result(5) is None
    with pytest.raises(IntegrityError):
        futures[1].result(5)
    assert futures[2].result(5) is None
    assert _names(database) == ["a", "b", "c", "d", "e"]


def test_a_group_is_one_commit(database: Database, writer: Writer) -> None:
    seen: list[int] = []
    gate = _Gate(writer)
    futures = [writer.insert((Holder, _values(f"{i:03}"))) for i in range(200)]
    futures[0].add_done_callback(lambda _: seen.append(len(_names(database))))
    gate.open()
    futures[-1].result(5)

    assert seen == [200]


def test_stop_commits_what_waits_and_refuses_what_comes(database: Database) -> None:
    writer = Writer(database)
    writer.start()
    gate = _Gate(writer)
    futures = [writer.insert((Holder, _values(f"{i:04}"))) for i in range(1000)]
    stopping = threading.Thread(target=writer.stop)
    stopping.start()
    gate.open()
    stopping.join()

    assert all(future.done() for future in futures)
    assert len(_names(database)) == 1000
    with pytest.raises(ShuttingDown):
        writer.insert((Holder, _values("late")))


def test_a_cancelled_future_is_not_written(database: Database, writer: Writer) -> None:
    gate = _Gate(writer)
    given_up = writer.insert((Holder, _values("a")))
    kept = writer.insert((Holder, _values("b")))
    assert given_up.cancel()
    gate.open()
    kept.result(5)

    assert _names(database) == ["b"]


def test_a_database_that_is_away_fails_what_waits_and_the_writer_lives(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'later' / 'x.db'}")
    writer = Writer(database)
    writer.start()
    with pytest.raises(StorageUnavailable):
        writer.submit(lambda c: c.execute(text("SELECT 1")).scalar()).result(5)

    (tmp_path / "later").mkdir()
    assert writer.submit(lambda c: c.execute(text("SELECT 1")).scalar()).result(5) == 1
    writer.stop()
    database.dispose()


def test_a_lost_connection_fails_what_it_held_and_the_writer_goes_on(postgres_url: str) -> None:
    def die(c: Connection) -> None:
        c.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    database = Database(postgres_url)
    writer = Writer(database)
    writer.start()
    gate = _Gate(writer)
    innocent = writer.insert((Holder, _values("a")))
    guilty = writer.submit(die)
    gate.open()
    for future in (innocent, guilty):
        with pytest.raises(StorageUnavailable):
            future.result(5)

    writer.insert((Holder, _values("b"))).result(5)
    assert _names(database) == ["b"]
    writer.stop()
    database.dispose()


@pytest.fixture
def rivals(postgres_url: str) -> Iterator[list[Writer]]:
    """The writers of two processes, and two rows for both to touch."""
    database = Database(postgres_url)
    writers = [Writer(database) for _ in range(2)]
    for writer in writers:
        writer.start()
    for name in "ab":
        writers[0].insert((Holder, _values(name))).result(5)
    yield writers
    for writer in writers:
        writer.stop()
    database.dispose()


def _beats(c: Connection) -> list[int]:
    return list(c.execute(select(_holder.c.beat)).scalars())


def test_two_processes_that_lock_rows_in_opposite_order_both_succeed(rivals: list[Writer]) -> None:
    both_hold_one = threading.Barrier(2)

    def touch(name: str, *, waits: bool = False) -> Callable[[Connection], None]:
        runs: list[str] = []

        def operation(c: Connection) -> None:
            c.execute(_holder.update().where(_holder.c.name == name).values(beat=_holder.c.beat + 1))
            runs.append(name)
            if waits and len(runs) == 1:
                both_hold_one.wait(5)

        return operation

    gates = [_Gate(writer) for writer in rivals]
    futures = []
    for writer, (first, second) in zip(rivals, [("a", "b"), ("b", "a")], strict=True):
        futures += [writer.submit(touch(first, waits=True)), writer.submit(touch(second))]
    for gate in gates:
        gate.open()
    for future in futures:
        assert future.result(10) is None

    assert rivals[0].submit(_beats).result(5) == [2, 2]


def test_an_operation_that_loses_a_deadlock_is_run_again(rivals: list[Writer]) -> None:
    both_hold_one = threading.Barrier(2)

    def touch(first: str, second: str) -> Callable[[Connection], None]:
        runs: list[str] = []

        def operation(c: Connection) -> None:
            runs.append(first)
            for name in (first, second):
                c.execute(_holder.update().where(_holder.c.name == name).values(beat=_holder.c.beat + 1))
                if name == first and len(runs) == 1:
                    both_hold_one.wait(5)

        return operation

    futures = [rivals[0].submit(touch("a", "b")), rivals[1].submit(touch("b", "a"))]
    assert [future.result(10) for future in futures] == [None, None]

    assert rivals[0].submit(_beats).result(5) == [2, 2]


async def test_callers_on_an_event_loop_get_values_errors_and_order(database: Database, writer: Writer) -> None:
    def refuse(c: Connection) -> None:
        raise JobNotFound("no such job")

    rows = [writer.add((Holder, _values(f"{i:03}"))) for i in range(100)]
    outcomes = await asyncio.gather(*rows, writer.call(refuse), return_exceptions=True)

    assert outcomes[:100] == [None] * 100
    assert isinstance(outcomes[100], JobNotFound)
    assert await writer.call(lambda c: c.execute(select(func.count()).select_from(_holder)).scalar_one()) == 100


async def test_a_caller_that_leaves_does_not_disturb_the_others(database: Database, writer: Writer) -> None:
    gate = _Gate(writer)
    leaving = writer.add((Holder, _values("a")))
    staying = writer.add((Holder, _values("b")))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.sleep(0)
    await asyncio.to_thread(gate.open)
    await staying

    assert "b" in _names(database)


def test_many_threads_write_at_once(database: Database, writer: Writer) -> None:
    def insert(name: str) -> None:
        for i in range(20):
            writer.insert((Holder, _values(f"{name}{i}"))).result(10)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(insert, "abcdefgh"))

    assert len(_names(database)) == 160
