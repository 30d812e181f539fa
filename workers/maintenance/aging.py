"""Aging of the back queue: jobs that wait too long move to the front queue, a few at a time.

While the front queue keeps every worker full, the back queue is not served. So one of its jobs for each worker moves to
the front queue: enough that the back queue advances, and few enough that background jobs never delay the others much.
In the engine such a job still yields to others, until it ages there (`workers.engine.scheduler`).
"""

from datetime import timedelta
from functools import partial

import structlog
from sqlalchemy import Connection

from storage.contract import PriorityQueue, WorkerStatus
from storage.database.connections import Database
from storage.database.group_commit import Writer
from storage.fleet import workers
from storage.jobs import jobs, recovery
from storage.jobs.recovery import Ticket

# How long a commit may take.
PATIENCE_S = 10.0

log = structlog.get_logger()


class Aging:
    """Finds the jobs that are due, and remembers those that it moved."""

    def __init__(self, database: Database, writer: Writer, aging_after_s: float) -> None:
        self._database = database
        self._writer = writer
        self._aging_after = timedelta(seconds=aging_after_s)
        self._moved: dict[str, set[str]] = {}

    def move(self) -> list[Ticket]:
        """The jobs that are in the front queue from now on; each needs a ticket there."""
        with self._database.connect() as connection:
            self._forget_ended(connection)
            models = [
                model
                for model, priority_queue in recovery.list_queues(connection)
                if priority_queue is PriorityQueue.BACK
            ]
            due = [job_id for model in models for job_id in self._due(connection, model)]
        if not due:
            return []
        moved = self._writer.submit(partial(_move, job_ids=due)).result(PATIENCE_S)
        for ticket in moved:
            self._moved.setdefault(ticket.model, set()).add(ticket.job_id)
        log.info("aged_jobs_moved", num_jobs=len(moved))
        return moved

    def _due(self, connection: Connection, model: str) -> list[str]:
        """The jobs to move: the oldest of those that waited too long, so that one for each worker is on its way."""
        num_workers = sum(one.status is WorkerStatus.READY for one in workers.list_workers(connection, model=model))
        limit = num_workers - len(self._moved.get(model, ()))
        if limit <= 0:
            return []
        before = recovery.database_now(connection) - self._aging_after
        waiting = recovery.list_lost_tickets(connection, model, PriorityQueue.BACK, before, limit)
        return [ticket.job_id for ticket in waiting]

    def _forget_ended(self, connection: Connection) -> None:
        moved = [job_id for job_ids in self._moved.values() for job_id in job_ids]
        states = jobs.list_states(connection, moved) if moved else []
        under_way = {state.job_id for state in states if not state.status.is_terminal}
        self._moved = {model: left for model, job_ids in self._moved.items() if (left := job_ids & under_way)}


def _move(connection: Connection, *, job_ids: list[str]) -> list[Ticket]:
    return recovery.move_to_front(connection, job_ids)
