"""Queue snapshot: everything that queue statistics read from the database in one pass, at a bounded cost.

The cost grows with models, priority queues and owners, not with queued jobs.
"""

import time
from collections.abc import Collection, Mapping
from datetime import datetime

import msgspec
from sqlalchemy import Connection

from storage.contract import PriorityQueue
from storage.derived import queue_counts
from storage.derived.queue_counts import Waiting
from storage.fleet import workers
from storage.fleet.tables import Worker
from storage.jobs import waiting
from storage.jobs.waiting import MAX_EXACT_POSITION, QueuePosition, Sample

Queue = tuple[str, PriorityQueue]
# Samples are read for at most so long in one snapshot, whatever else the machine does; later snapshots go on.
_SAMPLING_S = 0.05
_NUM_SAMPLES_AT_ONCE = 10


class DeepQueue(msgspec.Struct, frozen=True, kw_only=True):
    """A queue in which positions have to be estimated.

    head, tail: when the tickets of its first and its last job were sent
    samples:    those behind the samples that were known
    """

    head: datetime
    tail: datetime
    num_jobs: int
    samples: list[Sample]


class QueueSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Queued and running jobs at one moment.

    num_running: running jobs by worker
    positions:   of the watched jobs that are queued, by job id
    """

    waiting: list[Waiting]
    workers: list[Worker]
    num_running: dict[str, int]
    positions: dict[str, QueuePosition]
    deep: dict[Queue, DeepQueue]


def read_snapshot(
    connection: Connection, watched: Collection[str], last_samples: Mapping[Queue, Sample | None]
) -> QueueSnapshot:
    """The snapshot of this moment.

    watched:      ids of jobs whose positions are wanted
    last_samples: the newest known sample of each queue
    """
    counted = queue_counts.count_waiting(connection)
    return QueueSnapshot(
        waiting=counted,
        workers=workers.list_workers(connection),
        num_running=waiting.count_running(connection),
        positions=waiting.list_positions(connection, watched),
        deep=_read_deep_queues(connection, counted, last_samples),
    )


def _read_deep_queues(
    connection: Connection, counted: Collection[Waiting], last_samples: Mapping[Queue, Sample | None]
) -> dict[Queue, DeepQueue]:
    num_by_queue: dict[Queue, int] = {}
    for one in counted:
        queue = one.model, one.priority_queue
        num_by_queue[queue] = num_by_queue.get(queue, 0) + one.num_jobs
    deep: dict[Queue, DeepQueue] = {}
    deadline = time.monotonic() + _SAMPLING_S
    for (model, priority_queue), num_jobs in num_by_queue.items():
        if num_jobs <= MAX_EXACT_POSITION:
            continue
        head = waiting.find_oldest(connection, model, priority_queue)
        tail = waiting.find_newest(connection, model, priority_queue)
        if head is None or tail is None:
            continue
        last = last_samples.get((model, priority_queue))
        samples = _read_samples(connection, (model, priority_queue), last, deadline)
        deep[model, priority_queue] = DeepQueue(head=head, tail=tail, num_jobs=num_jobs, samples=samples)
    return deep


def _read_samples(connection: Connection, queue: Queue, last: Sample | None, deadline: float) -> list[Sample]:
    """The samples behind `last`, as many as can be read until the deadline, in monotonic seconds."""
    samples: list[Sample] = []
    while time.monotonic() < deadline:
        some = waiting.list_samples(connection, *queue, samples[-1] if samples else last, _NUM_SAMPLES_AT_ONCE)
        samples += some
        if len(some) < _NUM_SAMPLES_AT_ONCE:
            break
    return samples
