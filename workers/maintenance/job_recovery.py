"""Job recovery: requeues the jobs of dead workers, and sends tickets that were lost."""

import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Protocol, TypeVar

import structlog
from redis import Redis
from sqlalchemy import Connection

from storage.broker import celery_queue
from storage.contract import PriorityQueue, WorkerStatus
from storage.database.connections import Database
from storage.database.group_commit import Writer
from storage.fleet import workers
from storage.jobs import recovery
from storage.jobs.recovery import Recovered, Ticket
from workers.maintenance.duties import PAGE
from workers.maintenance.liveness import Observation, dead_workers, observe, renewed
from workers.maintenance.log_repair import LogRepair

PATIENCE_S = 10.0

log = structlog.get_logger()
T = TypeVar("T")


class Tickets(Protocol):
    """Sends tickets; see `storage.broker.celery_queue.TicketPublisher`."""

    def send(self, job_id: str, model: str, priority_queue: PriorityQueue) -> None:
        """Hand over a ticket and return at once."""


class JobRecovery:
    """Duties about jobs that no worker will get to by itself."""

    def __init__(
        self,
        database: Database,
        writer: Writer,
        connection: Redis,
        tickets: Tickets,
        log_repair: LogRepair,
        *,
        lease_s: float,
        max_lost_attempts: int,
        ticket_slack_s: float,
    ) -> None:
        self._database = database
        self._writer = writer
        self._redis = connection
        self._tickets = tickets
        self._log_repair = log_repair
        self._lease_s = lease_s
        self._max_lost_attempts = max_lost_attempts
        self._ticket_slack_s = ticket_slack_s
        self._workers: dict[str, Observation] = {}

    def renew_leases(self) -> None:
        """While the database was away no worker could renew its lease: all begin anew."""
        self._workers = renewed(self._workers, time.monotonic())

    def requeue_of_dead_workers(self) -> bool:
        """Give jobs of dead workers back to the queue; whether there may be more."""
        with self._database.connect() as connection:
            rows = workers.list_workers(connection)
        now = time.monotonic()
        alive = [(row.id, row.beat) for row in rows if row.status is not WorkerStatus.DEAD]
        self._workers = observe(self._workers, alive, now)
        dead = dead_workers(self._workers, now, self._lease_s)
        recovered = self._write(lambda connection: self._recover(connection, dead))
        if dead:
            log.warning("workers_lost", worker_ids=dead)
        if recovered.tickets or recovered.failed:
            log.warning("jobs_recovered", num_queued=len(recovered.tickets), num_failed=len(recovered.failed))
        self.send(recovered.tickets)
        for state in recovered.failed:
            self._log_repair.repair(state.job_id)
        return len(recovered.tickets) + len(recovered.failed) >= PAGE

    def send_lost_tickets(self) -> bool:
        """Send tickets for queued jobs that have none, a page of each queue; whether there may be more."""
        with self._database.connect() as connection:
            queues = recovery.list_queues(connection)
        has_more = False
        for model, priority_queue in queues:
            lost = self._lost_tickets(model, priority_queue)
            if lost:
                log.warning("tickets_lost", model=model, priority_queue=priority_queue, num_tickets=len(lost))
                self._write(partial(_mark_sent, tickets=lost))
                self.send(lost)
            has_more |= len(lost) == PAGE
        return has_more

    def send(self, tickets: Iterable[Ticket]) -> None:
        """Send each ticket to its queue."""
        for ticket in tickets:
            self._tickets.send(ticket.job_id, ticket.model, ticket.priority_queue)

    def _lost_tickets(self, model: str, priority_queue: PriorityQueue) -> list[Ticket]:
        # Rows and tickets are each stamped by the clock of their own store; only ages compare across the two.
        age_s = celery_queue.oldest_age_s(self._redis, model, priority_queue) + self._ticket_slack_s
        with self._database.connect() as connection:
            before = recovery.database_now(connection) - timedelta(seconds=age_s)
            return recovery.list_lost_tickets(connection, model, priority_queue, before, PAGE)

    def _recover(self, connection: Connection, dead: list[str]) -> Recovered:
        for worker_id in dead:
            workers.mark_dead(connection, worker_id)
        return recovery.requeue_of_dead_workers(
            connection, dead, max_lost_attempts=self._max_lost_attempts, now=datetime.now(UTC), limit=PAGE
        )

    def _write(self, operation: Callable[[Connection], T]) -> T:
        return self._writer.submit(operation).result(PATIENCE_S)


def _mark_sent(connection: Connection, *, tickets: list[Ticket]) -> None:
    recovery.mark_sent(connection, [ticket.job_id for ticket in tickets])
