"""Queue statistics from a snapshot and the jobs accepted since, and admission limits."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

import pytest
from msgspec import structs
from sqlalchemy import Connection

from api.caches.database_reads import Reader, TimeLimit
from api.capacity import queue_ranks, queue_snapshot
from api.capacity.admission_limits import AdmissionLimits
from api.capacity.queue_statistics import QueueStatistics
from api.streaming.subscription import Subscription
from storage.contract import PriorityQueue, WorkerStatus
from storage.database.connections import Database
from storage.errors import Overloaded, TooManyWaiting
from storage.fleet import workers
from storage.jobs import jobs, waiting
from tests.storage.examples import SPEC, after, put_job, put_worker
from tests.waiting import wait_until_async

PATIENT = structs.replace(SPEC, priority=10)
ENDED = {"num_jobs_ended": 0}
T = TypeVar("T")


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class SlowOnceReader(Reader):
    """Answers no query before `may_answer` is set."""

    def __init__(self, database: Database, *, timeout_s: float) -> None:
        super().__init__(database, timeout_s=timeout_s)
        self.may_answer = asyncio.Event()

    async def ask(self, query: Callable[[Connection], T]) -> T:
        async with TimeLimit(self.timeout_s, "the database"):
            await self.may_answer.wait()
        return await super().ask(query)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def statistics(database: Database, clock: Clock) -> AsyncIterator[QueueStatistics]:
    """Queue statistics that refresh only when they are started."""
    reads = Reader(database, timeout_s=5)
    yield QueueStatistics(reads, lease_s=6, refresh_s=60, clock=clock)
    reads.close()


def _put(database: Database, num_jobs: int, **changes: object) -> list[str]:
    with database.begin() as c:
        return [put_job(c, created_at=after(number), **changes) for number in range(num_jobs)]


def _serve(database: Database, running: int) -> None:
    """A worker of eight slots that ends 0.8 jobs a second, as far as is known, and has not reported what it runs."""
    now = datetime.now(UTC)
    with database.begin() as c:
        put_worker(c, "w1", now=now)
        workers.set_status(c, "w1", WorkerStatus.READY)
        workers.beat(c, "w1", 0, ENDED)
        for _ in range(running):
            assert jobs.claim(c, put_job(c), "w1", now)


async def test_a_snapshot_counts_queued_jobs_and_those_accepted_since_are_added(
    statistics: QueueStatistics, database: Database
) -> None:
    _put(database, 2)
    _put(database, 1, owner="bob", spec=PATIENT)
    await statistics.start()
    try:
        position = statistics.reserve("alice", "demo", PriorityQueue.BACK).position

        assert (position.priority_queue, position.number) == (PriorityQueue.BACK, 2)
        assert statistics.num_waiting("demo") == 4
        assert statistics.num_in_priority_queue("demo", PriorityQueue.FRONT) == 2
        assert (statistics.num_of_owner("alice"), statistics.num_of_owner("bob"), statistics.num_of_owner("carol")) == (
            3,
            1,
            0,
        )
        assert statistics.num_waiting("other") == 0
        assert statistics.wait_of(position) is None
    finally:
        await statistics.stop()


async def test_what_was_accepted_since_starts_meanwhile(
    statistics: QueueStatistics, database: Database, clock: Clock
) -> None:
    _serve(database, running=6)
    await statistics.start()
    for _ in range(10):
        statistics.reserve("alice", "demo", PriorityQueue.FRONT)

    # Two slots are free, and 0.8 jobs start each second.
    assert statistics.num_waiting("demo") == 8
    clock.now += 5
    assert statistics.num_waiting("demo") == statistics.num_of_owner("alice") == 4
    clock.now += 50
    assert statistics.num_waiting("demo") == 0
    await statistics.stop()


async def test_those_who_come_together_do_not_count_on_the_same_free_slots(
    statistics: QueueStatistics, database: Database
) -> None:
    _serve(database, running=6)
    await statistics.start()

    waits = [statistics.wait_of(statistics.reserve("alice", "demo", PriorityQueue.FRONT).position) for _ in range(4)]

    # Nobody knows how long the six will run.
    assert waits == [0, 0, None, None]
    await statistics.stop()


async def test_a_queued_stream_gets_its_position_whenever_that_changes(
    statistics: QueueStatistics, database: Database
) -> None:
    first, second = _put(database, 2)
    stream = Subscription(second)
    take = statistics.position_watchers.add(stream)
    await statistics.start()
    assert await stream.next() == []
    assert [take(), take()] == [b": queue position 2\n", b""]

    with database.begin() as c:
        jobs.claim(c, first, "w1", after(0))
    await statistics.refresh()
    assert await stream.next() == []
    assert take() == b": queue position 1\n"

    with database.begin() as c:
        jobs.claim(c, second, "w1", after(0))
    await statistics.refresh()
    assert statistics.position_watchers.job_ids() == set()
    assert take() == b""
    statistics.position_watchers.remove(stream)
    await statistics.stop()


async def test_a_stream_that_leaves_is_asked_for_no_more(statistics: QueueStatistics) -> None:
    stream = Subscription("resp_x")
    statistics.position_watchers.add(stream)
    assert statistics.position_watchers.job_ids() == {"resp_x"}

    statistics.position_watchers.remove(stream)

    assert statistics.position_watchers.job_ids() == set()


async def test_beyond_its_bound_an_owner_is_refused_and_others_are_not(
    statistics: QueueStatistics, database: Database, clock: Clock
) -> None:
    _put(database, 3)
    _put(database, 1, model="other")
    await statistics.start()
    admission_limits = AdmissionLimits(statistics, max_per_model=0, max_per_owner=4, clock=clock)

    with pytest.raises(TooManyWaiting) as refusal:
        admission_limits.check("alice", "third", PriorityQueue.FRONT)

    # Nobody serves these models.
    assert refusal.value.retry_after_s == 120
    admission_limits.check("bob", "demo", PriorityQueue.FRONT)
    AdmissionLimits(statistics, max_per_model=0, max_per_owner=5, clock=clock).check(
        "alice", "demo", PriorityQueue.FRONT
    )
    await statistics.stop()


async def test_beyond_a_models_limit_each_refusal_gets_a_later_retry_slot(
    statistics: QueueStatistics, database: Database, clock: Clock
) -> None:
    _put(database, 6)
    _put(database, 2, owner="bob")
    _serve(database, running=8)
    await statistics.start()
    admission_limits = AdmissionLimits(statistics, max_per_model=8, max_per_owner=0, clock=clock)
    slots = partial(_retry_slots, admission_limits)

    # 0.8 jobs are begun each second; the retry slots advance at the same rate.
    assert slots(4) == [2, 3, 4, 5]
    clock.now += 5
    assert slots(2) == [2, 3]
    assert slots(500)[-1] == 120
    admission_limits.check("alice", "other", PriorityQueue.FRONT)
    await statistics.stop()


def _retry_slots(admission_limits: AdmissionLimits, num_calls: int) -> list[int]:
    found = []
    for _ in range(num_calls):
        with pytest.raises(Overloaded) as refusal:
            admission_limits.check("alice", "demo", PriorityQueue.FRONT)
        found.append(refusal.value.retry_after_s)
    return found


async def test_who_can_wait_does_not_shut_out_who_cannot(statistics: QueueStatistics, database: Database) -> None:
    _put(database, 3, spec=PATIENT)
    _put(database, 1)
    await statistics.start()
    admission_limits = AdmissionLimits(statistics, max_per_model=2, max_per_owner=0)

    with pytest.raises(Overloaded):
        admission_limits.check("alice", "demo", PriorityQueue.BACK)
    admission_limits.check("alice", "demo", PriorityQueue.FRONT)
    statistics.reserve("alice", "demo", PriorityQueue.FRONT)
    with pytest.raises(Overloaded):
        admission_limits.check("alice", "demo", PriorityQueue.FRONT)
    admission_limits.check("alice", "demo", PriorityQueue.PRIORITY)
    await statistics.stop()


async def test_no_bound_refuses_nobody(statistics: QueueStatistics, database: Database) -> None:
    _put(database, 3)
    await statistics.start()

    AdmissionLimits(statistics, max_per_model=0, max_per_owner=0).check("alice", "demo", PriorityQueue.FRONT)
    await statistics.stop()


async def test_it_refreshes_by_itself(database: Database) -> None:
    reads = Reader(database, timeout_s=5)
    statistics = QueueStatistics(reads, lease_s=6, refresh_s=0.02)
    await statistics.start()
    _put(database, 3)

    await wait_until_async(lambda: statistics.num_waiting("demo") == 3)

    await statistics.stop()
    reads.close()


async def test_the_reservation_of_a_job_that_was_not_written_is_released(
    statistics: QueueStatistics, database: Database
) -> None:
    _put(database, 1)
    await statistics.start()
    reservation = statistics.reserve("alice", "demo", PriorityQueue.FRONT)
    assert statistics.num_of_owner("alice") == statistics.num_waiting("demo") == 2

    reservation.release()

    assert statistics.num_of_owner("alice") == statistics.num_waiting("demo") == 1
    stale = statistics.reserve("alice", "demo", PriorityQueue.FRONT)
    await statistics.refresh()
    stale.release()
    assert statistics.num_of_owner("alice") == 1
    await statistics.stop()


async def test_statistics_of_a_database_that_is_too_slow_come_later(database: Database) -> None:
    _put(database, 1)
    reads = SlowOnceReader(database, timeout_s=0.05)
    statistics = QueueStatistics(reads, lease_s=6, refresh_s=0.05)

    await statistics.start()
    assert statistics.num_waiting("demo") == 0
    reads.may_answer.set()

    await wait_until_async(lambda: statistics.num_waiting("demo") == 1, 5, "the first snapshot")
    await statistics.stop()
    reads.close()


@pytest.fixture
def small_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Positions are estimated from the eleventh job on, with a sample in ten."""
    for module in (waiting, queue_snapshot, queue_ranks):
        monkeypatch.setattr(module, "MAX_EXACT_POSITION", 10)
    for module in (waiting, queue_ranks):
        monkeypatch.setattr(module, "SAMPLE_SIZE", 10)


async def _positions(statistics: QueueStatistics, database: Database, seconds: Sequence[float]) -> list[int]:
    """The positions of jobs that were queued a year ago at these seconds, as one snapshot shows them."""
    with database.begin() as c:
        job_ids = [put_job(c, created_at=after(moment - 86400 * 365)) for moment in seconds]
    await statistics.start()
    with database.connect() as c:
        found = [waiting.find_position(c, job_id) for job_id in job_ids]
    await statistics.stop()
    return [statistics.refine(position).number for position in found if position is not None]


@pytest.mark.usefixtures("small_samples")
async def test_a_deep_position_is_estimated_from_samples(statistics: QueueStatistics, database: Database) -> None:
    # Ninety jobs in one minute, then ten in an hour.
    numbers = await _positions(
        statistics, database, [number * 60 / 90 for number in range(90)] + [60 + number * 360 for number in range(10)]
    )

    assert numbers[:10] == list(range(1, 11))
    assert all(abs(number - (index + 1)) <= 10 for index, number in enumerate(numbers))


@pytest.mark.usefixtures("small_samples")
async def test_a_deep_position_is_right_before_any_sample_was_read(
    statistics: QueueStatistics, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_snapshot, "_SAMPLING_S", 0)

    numbers = await _positions(statistics, database, range(100))

    assert all(abs(number - (index + 1)) <= 1 for index, number in enumerate(numbers))
    assert numbers[-1] == 100
