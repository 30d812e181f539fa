"""The worker's registration: its row, its model's manifest and its heartbeat."""

import os
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

import structlog
from msgspec import structs
from sqlalchemy import Connection

from storage.contract import WorkerStatus
from storage.database.group_commit import Writer
from storage.fleet import manifests, workers
from storage.fleet.workers import NewWorker
from storage.jobs import jobs, recovery
from storage.jobs.records import JobState
from storage.jobs.recovery import Recovered, Ticket
from storage.model_manifest import ModelManifest
from workers.engine.stats import EngineStats

# A writer that does not answer for so long is as good as away.
PATIENCE_S = 10.0

log = structlog.get_logger()
T = TypeVar("T")


class Registry:
    """The worker's row. Every call waits for its commit; StorageUnavailable or TimeoutError when none comes."""

    def __init__(self, writer: Writer, *, worker_id: str, model: str, slots: int) -> None:
        self._writer = writer
        self._new = NewWorker(
            worker_id=worker_id,
            model=model,
            pid=os.getpid(),
            host=socket.gethostname(),
            device="",
            dtype="",
            slots=slots,
        )
        self._status = WorkerStatus.LOADING
        self._has_failed = False
        self._context_length = 0

    def announce(self, max_lost_attempts: int) -> list[Ticket]:
        """Make the worker known as loading.

        Jobs that still run under its id are those of an earlier process, which died: each has lost an attempt, and
        most are queued again.

        returns: the tickets that those need
        """
        self._write(self._put_row)
        tickets: list[Ticket] = []
        while True:
            lost = self._write(partial(self._requeue_lost, max_lost_attempts=max_lost_attempts))
            num_jobs = len(lost.tickets) + len(lost.failed)
            if not num_jobs:
                return tickets
            log.warning("jobs_of_earlier_process", worker_id=self._new.worker_id, num_jobs=num_jobs)
            tickets += lost.tickets

    def ready(self, manifest: ModelManifest, engine: EngineStats, *, device: str, dtype: str) -> None:
        """Publish the model's manifest, and that this worker serves it."""
        self._context_length = manifest.context_length
        self._new = structs.replace(self._new, model=manifest.model, device=device, dtype=dtype)
        self._status = WorkerStatus.READY

        def write(connection: Connection) -> None:
            manifests.put_manifest(connection, manifest, datetime.now(UTC))
            self._put_row(connection)
            workers.beat(connection, self._new.worker_id, 0, self._reported(engine, 0))

        self._write(write)

    def draining(self) -> None:
        """Say that the worker takes no more jobs."""
        self._status = WorkerStatus.DRAINING
        self._write(self._put_status)

    def dead(self) -> None:
        """Mark the worker dead, so that its lease need not run out."""
        self._write(lambda connection: workers.mark_dead(connection, self._new.worker_id))

    def failed(self, reason: str) -> None:
        """Mark the worker dead, and store why its model cannot be loaded.

        reason: for people
        """
        # From now on no beat registers the worker again.
        self._has_failed = True
        self._write(lambda connection: workers.put_failure(connection, self._new, reason, datetime.now(UTC)))

    def beat(self, running: int, engine: EngineStats | None, num_jobs_ended: int) -> list[JobState]:
        """Renew the lease; the jobs that the rows say are in progress here.

        engine:         its newest statistics; None while the model loads
        num_jobs_ended: from which the API estimates this worker's throughput

        A worker that was declared dead by mistake comes back; its jobs were given to others.
        """

        reported = None if engine is None else self._reported(engine, num_jobs_ended)

        def write(connection: Connection) -> list[JobState]:
            if not workers.beat(connection, self._new.worker_id, running, reported) and not self._has_failed:
                log.warning("worker_was_declared_dead", worker_id=self._new.worker_id)
                self._put_row(connection)
            return jobs.list_running_of(connection, self._new.worker_id)

        return self._write(write)

    def _reported(self, engine: EngineStats, num_jobs_ended: int) -> dict[str, int]:
        return structs.asdict(engine) | {"num_jobs_ended": num_jobs_ended, "context_length": self._context_length}

    def give_back(self, states: list[JobState]) -> None:
        """Queue jobs again that the rows give to this worker and that it does not run."""
        for state in states:
            log.warning("orphan_given_back", job_id=state.job_id, attempt=state.attempt)
            self._write(partial(_requeue, state=state))

    def _write(self, operation: Callable[[Connection], T]) -> T:
        return self._writer.submit(operation).result(PATIENCE_S)

    def _requeue_lost(self, connection: Connection, *, max_lost_attempts: int) -> Recovered:
        return recovery.requeue_of_dead_workers(
            connection, [self._new.worker_id], max_lost_attempts=max_lost_attempts, now=datetime.now(UTC)
        )

    def _put_row(self, connection: Connection) -> None:
        workers.register(connection, self._new, datetime.now(UTC))
        if self._status is not WorkerStatus.LOADING:
            self._put_status(connection)

    def _put_status(self, connection: Connection) -> None:
        workers.set_status(connection, self._new.worker_id, self._status)


def _requeue(connection: Connection, *, state: JobState) -> bool:
    return jobs.requeue(connection, state.job_id, state.attempt)
