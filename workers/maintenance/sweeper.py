"""The sweeper: finds what fell between row, queue and log, and puts it right. One process at a time does it.

It looks every second for jobs of dead workers, tickets that got lost, jobs that wait too long, jobs and idempotency
keys whose time is over, and ended jobs whose log does not say so.
"""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol, TypeVar

import structlog
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import Connection

from storage.accounts import idempotency
from storage.broker import celery_queue
from storage.broker.event_log import delete_logs
from storage.contract import PriorityQueue, WorkerStatus
from storage.database.connections import Database
from storage.database.group_commit import Writer
from storage.errors import StorageUnavailable
from storage.fleet import lock_holders, workers
from storage.jobs import recovery
from storage.jobs.recovery import Recovered, Ticket
from storage.settings import StorageSettings
from workers.maintenance.aging import Aging
from workers.maintenance.liveness import Observation, dead_workers, observe, renewed
from workers.maintenance.log_repair import LogRepair
from workers.maintenance.overdue import Overdue
from workers.settings import SweeperSettings

FORGET_AFTER = timedelta(days=1)
FORGET_EVERY = 600
FORGET_KEYS_EVERY = 60
PATIENCE_S = 10.0

log = structlog.get_logger()
T = TypeVar("T")


class Tickets(Protocol):
    """Sends tickets; see `storage.broker.celery_queue.TicketPublisher`."""

    def send(self, job_id: str, model: str, priority_queue: PriorityQueue) -> None:
        """Hand over a ticket and return at once."""


class Sweeper:
    """Looks and acts; `sweep` is one look."""

    def __init__(
        self,
        settings: SweeperSettings,
        storage: StorageSettings,
        database: Database,
        writer: Writer,
        connection: Redis,
        tickets: Tickets,
    ) -> None:
        self._settings = settings
        self._storage = storage
        self._database = database
        self._writer = writer
        self._redis = connection
        self._tickets = tickets
        self._log_repair = LogRepair(storage, database, writer, connection, settling_s=settings.settling_s)
        self._overdue = Overdue(
            database, writer, connection, self._log_repair, unserved_after_s=settings.unserved_after_s
        )
        self._aging = Aging(database, writer, settings.aging_after_s)
        self._workers: dict[str, Observation] = {}
        self._holder: dict[str, Observation] = {}
        self._num_sweeps = 0

    def sweep(self) -> None:
        """One look; does nothing while another process holds the duty."""
        try:
            if self._is_holder():
                self._act()
        except (StorageUnavailable, TimeoutError) as error:
            log.warning("sweep_failed", error=str(error))
            # Time without a database counts against nobody.
            self._workers = renewed(self._workers, time.monotonic())
            self._holder = renewed(self._holder, time.monotonic())

    def leave(self) -> None:
        """Give the duty up, so that the next one need not wait for a lease."""
        try:
            self._write(lambda connection: lock_holders.release(connection, self._settings.worker_id))
        except (StorageUnavailable, TimeoutError) as error:
            log.warning("sweeper_duty_kept", error=str(error))

    def _act(self) -> None:
        for part in (
            self._recover,
            self._overdue.end_overdue,
            self._overdue.end_unserved,
            self._send_again,
            self._move_aged,
            self._erase,
            self._log_repair.repair_ended,
            self._log_repair.settle_ended,
        ):
            try:
                part()
            except RedisError as error:
                log.warning("sweep_without_redis", part=part.__name__, error=str(error))
        self._num_sweeps += 1
        if self._num_sweeps % FORGET_EVERY == 1:
            # As long as the row of a model's last worker is there, it tells since when nobody serves it.
            before = datetime.now(UTC) - max(FORGET_AFTER, timedelta(seconds=2 * self._settings.unserved_after_s))
            self._write(lambda connection: workers.forget_dead(connection, before))
        if self._num_sweeps % FORGET_KEYS_EVERY == 1:
            self._forget_keys()

    def _is_holder(self) -> bool:
        """Whether the duty is this process's, perhaps from now on."""
        me = self._settings.worker_id
        if self._write(lambda connection: lock_holders.renew(connection, lock_holders.SWEEPER, me)):
            return True
        with self._database.connect() as connection:
            seen = lock_holders.find(connection, lock_holders.SWEEPER)
        now = time.monotonic()
        self._holder = observe(self._holder, [] if seen is None else [(lock_holders.SWEEPER, seen)], now)
        if seen is not None and not dead_workers(self._holder, now, self._storage.lease_s):
            return False
        is_taken = self._write(lambda connection: lock_holders.take(connection, lock_holders.SWEEPER, me, seen))
        log.info("sweeper_duty", is_taken=is_taken)
        return is_taken

    def _recover(self) -> None:
        """Give the jobs of dead workers back to the queue."""
        with self._database.connect() as connection:
            rows = workers.list_workers(connection)
        now = time.monotonic()
        alive = [(row.id, row.beat) for row in rows if row.status is not WorkerStatus.DEAD]
        self._workers = observe(self._workers, alive, now)
        dead = dead_workers(self._workers, now, self._storage.lease_s)
        recovered = self._write(lambda connection: self._mark_dead(connection, dead))
        if dead:
            log.warning("workers_lost", worker_ids=dead)
        if recovered.tickets or recovered.failed:
            log.warning("jobs_recovered", num_queued=len(recovered.tickets), num_failed=len(recovered.failed))
        self._send(recovered.tickets)
        for state in recovered.failed:
            self._log_repair.repair(state.job_id)

    def _mark_dead(self, connection: Connection, dead: list[str]) -> Recovered:
        for worker_id in dead:
            workers.mark_dead(connection, worker_id)
        return recovery.requeue_of_dead_workers(
            connection, dead, max_lost_attempts=self._storage.max_lost_attempts, now=datetime.now(UTC)
        )

    def _send_again(self) -> None:
        """Send tickets for queued jobs that have none: those older than the oldest that waits."""
        with self._database.connect() as connection:
            lines = recovery.list_queues(connection)
        for model, priority_queue in lines:
            # Rows and tickets are each stamped by one clock, their keeper's; only ages compare across the two.
            age_s = celery_queue.oldest_age_s(self._redis, model, priority_queue) + self._settings.ticket_slack_s
            with self._database.connect() as connection:
                before = recovery.database_now(connection) - timedelta(seconds=age_s)
                lost = recovery.list_lost_tickets(connection, model, priority_queue, before)
            if lost:
                log.warning("tickets_lost", model=model, priority_queue=priority_queue, num_tickets=len(lost))
                self._mark_sent(lost)
                self._send(lost)

    def _mark_sent(self, tickets: list[Ticket]) -> None:
        job_ids = [ticket.job_id for ticket in tickets]
        self._write(lambda connection: recovery.mark_sent(connection, job_ids))

    def _send(self, tickets: list[Ticket]) -> None:
        for ticket in tickets:
            self._tickets.send(ticket.job_id, ticket.model, ticket.priority_queue)

    def _move_aged(self) -> None:
        """Bring jobs that waited too long in the back lane to the front."""
        self._send(self._aging.move())

    def _erase(self) -> None:
        """Erase jobs whose time is over: the log first, so that a crash between leaves a row that is found again."""
        with self._database.connect() as connection:
            job_ids = recovery.list_erasable(connection, datetime.now(UTC))
        if job_ids:
            delete_logs(self._redis, job_ids)
            self._write(lambda connection: recovery.erase_many(connection, job_ids))
            log.info("jobs_erased", num_jobs=len(job_ids))

    def _forget_keys(self) -> None:
        """Forget idempotency keys whose time is over; they are free before that."""
        now = datetime.now(UTC)
        while num_keys := self._write(lambda connection: idempotency.forget_expired(connection, now)):
            log.info("idempotency_keys_forgotten", num_keys=num_keys)

    def _write(self, operation: Callable[[Connection], T]) -> T:
        return self._writer.submit(operation).result(PATIENCE_S)


class SweeperThread:
    """Sweeps every `interval_s` until it is stopped."""

    def __init__(self, sweep: Callable[[], None], interval_s: float) -> None:
        self._sweep = sweep
        self._interval_s = interval_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)

    def start(self) -> None:
        """Begin to sweep, at once."""
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Sweep no more."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._sweep()
            except Exception:  # the thread's door: the next look may find it better, and nobody else looks
                log.exception("sweep_broken")
            self._stopping.wait(self._interval_s)
