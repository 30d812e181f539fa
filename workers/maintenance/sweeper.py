"""The sweeper: finds what fell between row, queue and log, and puts it right. One process at a time does it.

Its duties are done in turns, a page each: jobs of dead workers, overdue jobs, lost tickets, jobs that age in the back
queue, jobs and keys whose time is over, deleted conversations, logs without an END. While there is more than a page, it
goes on at once.
"""

import time
from collections.abc import Callable
from typing import TypeVar

import structlog
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import Connection

from storage.database.connections import Database
from storage.database.group_commit import Writer
from storage.errors import StorageUnavailable
from storage.fleet import lock_holders
from storage.settings import StorageSettings
from workers.maintenance.aging import Aging
from workers.maintenance.duties import Duty, run_in_turns
from workers.maintenance.job_recovery import JobRecovery, Tickets
from workers.maintenance.liveness import Observation, dead_workers, observe, renewed
from workers.maintenance.log_eviction import LogEviction
from workers.maintenance.log_repair import LogRepair
from workers.maintenance.overdue import Overdue
from workers.maintenance.retention import Retention
from workers.settings import SweeperSettings

PATIENCE_S = 10.0

log = structlog.get_logger()
T = TypeVar("T")


class Sweeper:
    """Holds the duty of one process, and does the duties in turns.

    has_duty: whether the last pass found that the duty is this process's
    """

    def __init__(
        self,
        settings: SweeperSettings,
        storage: StorageSettings,
        database: Database,
        writer: Writer,
        connection: Redis,
        tickets: Tickets,
    ) -> None:
        self._worker_id = settings.worker_id
        self._lease_s = storage.lease_s
        self._budget_s = settings.sweep_interval_s
        self._database = database
        self._writer = writer
        self._holder: dict[str, Observation] = {}
        self.has_duty = False
        log_repair = LogRepair(storage, database, writer, connection, settling_s=settings.settling_s)
        self._recovery = JobRecovery(
            database,
            writer,
            connection,
            tickets,
            log_repair,
            lease_s=storage.lease_s,
            max_lost_attempts=storage.max_lost_attempts,
            ticket_slack_s=settings.ticket_slack_s,
        )
        self._aging = Aging(database, writer, settings.aging_after_s)
        unserved_after_s = settings.unserved_after_s
        overdue = Overdue(database, writer, connection, log_repair, unserved_after_s=unserved_after_s)
        retention = Retention(database, writer, connection, unserved_after_s=unserved_after_s)
        eviction = LogEviction(
            database, connection, log_repair, retentions_s=storage.retentions_s, ttl_s=storage.log_ttl_ended_s
        )
        self._duties: tuple[Duty, ...] = (
            self._recovery.requeue_of_dead_workers,
            overdue.end_overdue,
            overdue.end_unserved,
            self._recovery.send_lost_tickets,
            self._move_aged,
            retention.erase_jobs,
            retention.erase_conversations,
            log_repair.repair_ended,
            log_repair.settle_ended,
            eviction.evict,
            retention.forget_keys,
            retention.forget_workers,
        )

    def sweep(self) -> bool:
        """Do the duties for at most one interval, if they are this process's; whether more waits."""
        try:
            self.has_duty = self._is_holder()
            if self.has_duty:
                return run_in_turns(self._duties, budget_s=self._budget_s, clock=time.monotonic, on_page=_page)
        except (StorageUnavailable, TimeoutError) as error:
            log.warning("sweep_failed", error=str(error))
            # Time without a database counts against no worker.
            self._recovery.renew_leases()
            self._holder = renewed(self._holder, time.monotonic())
        return False

    def leave(self) -> None:
        """Give the duty up, so that the next process need not wait for a lease."""
        self.has_duty = False
        try:
            self._write(lambda connection: lock_holders.release(connection, self._worker_id))
        except (StorageUnavailable, TimeoutError) as error:
            log.warning("sweeper_duty_kept", error=str(error))

    def _is_holder(self) -> bool:
        """Whether the duty is this process's, perhaps from now on."""
        me = self._worker_id
        if self._write(lambda connection: lock_holders.renew(connection, lock_holders.SWEEPER, me)):
            return True
        with self._database.connect() as connection:
            seen = lock_holders.find(connection, lock_holders.SWEEPER)
        now = time.monotonic()
        self._holder = observe(self._holder, [] if seen is None else [(lock_holders.SWEEPER, seen)], now)
        if seen is not None and not dead_workers(self._holder, now, self._lease_s):
            return False
        is_taken = self._write(lambda connection: lock_holders.take(connection, lock_holders.SWEEPER, me, seen))
        log.info("sweeper_duty", is_taken=is_taken)
        return is_taken

    def _move_aged(self) -> bool:
        """Move jobs that waited too long from the back queue to the front queue; a few each time."""
        self._recovery.send(self._aging.move())
        return False

    def _write(self, operation: Callable[[Connection], T]) -> T:
        return self._writer.submit(operation).result(PATIENCE_S)


def log_broken(error: Exception) -> bool:
    """Log what a sweep raised unexpectedly; True, since the next sweep may succeed, and no other thread sweeps."""
    log.error("sweep_broken", exc_info=error)
    return True


def _page(duty: Duty) -> bool:
    try:
        return duty()
    except RedisError as error:
        log.warning("sweep_without_redis", duty=duty.__name__, error=str(error))
        return False
