"""Queue ranks: positions deep in a queue, estimated from samples."""

from datetime import UTC, datetime, timedelta

import pytest

from api.capacity.queue_ranks import QueueRanks
from api.capacity.queue_snapshot import DeepQueue
from storage.jobs.waiting import MAX_EXACT_POSITION, SAMPLE_SIZE, Sample

START = datetime(2026, 11, 30, tzinfo=UTC)


def at(second: float) -> datetime:
    return START + timedelta(seconds=second)


def sample(second: float) -> Sample:
    return Sample(sent_at=at(second), owner="alice", job_id="x")


def queue(head: float, tail: float, num_jobs: int, *samples: float) -> DeepQueue:
    """A queue whose first and last tickets were sent at these seconds, with samples at others."""
    return DeepQueue(head=at(head), tail=at(tail), num_jobs=num_jobs, samples=list(map(sample, samples)))


def test_without_samples_positions_are_spread_evenly_over_time() -> None:
    ranks = QueueRanks()
    ranks.update(queue(0, 100, 10_000))

    assert ranks.last is None
    assert ranks.position(at(50)) == 5001
    assert ranks.position(at(1)) == MAX_EXACT_POSITION + 1
    assert ranks.position(at(200)) == 10_000


def test_samples_show_where_many_jobs_came_at_once() -> None:
    ranks = QueueRanks()
    # Nine thousand jobs in nine seconds, then a thousand in 91.
    ranks.update(queue(0, 100, 10_000, *range(1, 10)))

    assert ranks.position(at(4.5)) == 4501
    assert ranks.position(at(54.5)) == pytest.approx(9501, abs=1)


def test_few_samples_suffice_where_jobs_come_evenly() -> None:
    ranks = QueueRanks()
    # Ten thousand jobs a second; one snapshot has read the first three samples.
    ranks.update(queue(0, 10, 100_000, 0.1, 0.2, 0.3))

    assert [ranks.position(at(second)) for second in (0.25, 5, 9.9995, 10)] == pytest.approx(
        [2_501, 50_001, 99_996, 100_000], abs=2
    )


def test_positions_fall_as_the_head_moves_and_old_samples_go() -> None:
    ranks = QueueRanks()
    ranks.update(queue(0, 100, 10_000, *range(1, 11)))
    before = ranks.position(at(8))

    ranks.update(queue(5, 101, 5_000))

    assert before == 8001
    assert ranks.position(at(8)) == 3001
    assert ranks.last == sample(10)


def test_jobs_that_left_the_middle_of_the_queue_scale_the_positions() -> None:
    ranks = QueueRanks()
    ranks.update(queue(0, 10, 10 * SAMPLE_SIZE, *range(1, 11)))

    ranks.update(queue(0, 10, 5 * SAMPLE_SIZE))

    assert ranks.position(at(8)) == 4001


def test_a_queue_whose_head_has_passed_all_samples_is_read_anew() -> None:
    ranks = QueueRanks()
    ranks.update(queue(0, 10, 2000, 1, 2))

    ranks.update(queue(5, 15, 4000))

    assert ranks.last is None
    assert ranks.position(at(10)) == 2001
