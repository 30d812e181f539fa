"""Queue ranks: positions deep in a queue, estimated from samples."""

from datetime import UTC, datetime, timedelta

import pytest

from api.capacity.queue_ranks import QueueRanks
from storage.jobs.waiting import MAX_EXACT_POSITION, SAMPLE_SIZE, Sample

START = datetime(2026, 11, 30, tzinfo=UTC)


def at(second: float) -> datetime:
    return START + timedelta(seconds=second)


def sample(second: float) -> Sample:
    return Sample(sent_at=at(second), owner="alice", job_id="x")


def test_without_samples_positions_are_spread_evenly_over_time() -> None:
    ranks = QueueRanks()
    ranks.update(at(0), at(100), 10_000, [])

    assert ranks.last is None
    assert ranks.position(at(50)) == 5001
    assert ranks.position(at(1)) == MAX_EXACT_POSITION + 1
    assert ranks.position(at(200)) == 10_000


def test_samples_show_where_many_jobs_came_at_once() -> None:
    ranks = QueueRanks()
    # Nine thousand jobs in nine seconds, then a thousand in 91.
    ranks.update(at(0), at(100), 10_000, [sample(second) for second in range(1, 10)])

    assert ranks.position(at(4.5)) == 4501
    assert ranks.position(at(54.5)) == pytest.approx(9501, abs=1)


def test_positions_fall_as_the_head_moves_and_old_samples_go() -> None:
    ranks = QueueRanks()
    ranks.update(at(0), at(100), 10_000, [sample(second) for second in range(1, 11)])
    before = ranks.position(at(8))

    ranks.update(at(5), at(101), 5_000, [])

    assert before == 8001
    assert ranks.position(at(8)) == 3001
    assert ranks.last == sample(10)


def test_jobs_that_left_the_middle_of_the_queue_scale_the_positions() -> None:
    ranks = QueueRanks()
    ranks.update(at(0), at(10), 10 * SAMPLE_SIZE, [sample(second) for second in range(1, 11)])

    ranks.update(at(0), at(10), 5 * SAMPLE_SIZE, [])

    assert ranks.position(at(8)) == 4001


def test_a_queue_whose_head_has_passed_all_samples_is_read_anew() -> None:
    ranks = QueueRanks()
    ranks.update(at(0), at(10), 2000, [sample(1), sample(2)])

    ranks.update(at(5), at(15), 4000, [])

    assert ranks.last is None
    assert ranks.position(at(10)) == 2001
