"""Queue ranks: the position of a job deep in its queue, estimated from samples of the queue. Pure.

Each process reads a queue once from its head to its tail, one row in SAMPLE_SIZE, and then follows the tail. A job's
position is the number of samples between the head and the job, scaled so that the whole queue has the number of jobs
that the queue counts say: this takes in jobs that left the queue in the middle.
"""

from bisect import bisect_left, bisect_right
from datetime import datetime

from api.capacity.queue_snapshot import DeepQueue
from storage.jobs.waiting import MAX_EXACT_POSITION, SAMPLE_SIZE, Sample


class QueueRanks:
    """The samples of one queue, and what its rank estimates need of the newest snapshot."""

    def __init__(self) -> None:
        self._samples: list[Sample] = []
        self._queue: DeepQueue | None = None

    @property
    def last(self) -> Sample | None:
        """The newest sample, behind which the next ones are to be read."""
        return self._samples[-1] if self._samples else None

    def update(self, queue: DeepQueue) -> None:
        """Take in a snapshot of the queue, with the samples behind `last`."""
        self._samples += queue.samples
        self._queue = queue
        # One sample before the head is kept: the interpolation begins there.
        num_gone = bisect_right(self._samples, queue.head, key=_sent_at)
        del self._samples[: num_gone if num_gone == len(self._samples) else max(0, num_gone - 1)]

    def position(self, sent_at: datetime) -> int:
        """About how many jobs are before one whose ticket was sent then, and that one."""
        queue = self._queue
        if queue is None:
            return MAX_EXACT_POSITION + 1
        head, job, tail = (self._rank(queue, moment) for moment in (queue.head, sent_at, queue.tail))
        share = (job - head) / (tail - head) if tail > head else 1.0
        return max(MAX_EXACT_POSITION + 1, min(queue.num_jobs, 1 + round(share * queue.num_jobs)))

    def _rank(self, queue: DeepQueue, moment: datetime) -> float:
        """Jobs from the first sample to this moment, by interpolation; behind the last sample up to the tail."""
        index = bisect_left(self._samples, moment, key=_sent_at)
        if index == len(self._samples):
            return self._rank_behind_samples(queue, moment)
        start, rank = (self._samples[index - 1].sent_at, index * SAMPLE_SIZE) if index else (queue.head, 0)
        return rank + SAMPLE_SIZE * _share(start, moment, self._samples[index].sent_at)

    def _rank_behind_samples(self, queue: DeepQueue, moment: datetime) -> float:
        if not self._samples:
            return queue.num_jobs * _share(queue.head, moment, queue.tail)
        num_sampled = len(self._samples) * SAMPLE_SIZE
        num_behind = max(0.0, queue.num_jobs - (num_sampled - self._rank(queue, queue.head)))
        return num_sampled + num_behind * _share(self._samples[-1].sent_at, moment, queue.tail)


def _share(start: datetime, moment: datetime, end: datetime) -> float:
    whole = (end - start).total_seconds()
    return 1.0 if whole <= 0 else min(1.0, max(0.0, (moment - start).total_seconds() / whole))


def _sent_at(sample: Sample) -> datetime:
    return sample.sent_at
