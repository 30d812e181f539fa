"""Eviction of ended logs while Redis is short of memory: their rows replay the same bytes."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial

import structlog
from redis import Redis

from storage.broker.event_log import delete_logs, list_unended
from storage.database.connections import Database
from storage.jobs import recovery
from workers.maintenance.duties import PAGE
from workers.maintenance.log_repair import LogRepair

# Of Redis' memory limit; beyond it ended logs go before their time.
PRESSURE_SHARE = 0.4

log = structlog.get_logger()


def is_under_pressure(used_bytes: int, limit_bytes: int) -> bool:
    """Whether Redis holds so much that ended logs are evicted; never where it has no limit."""
    return limit_bytes > 0 and used_bytes > PRESSURE_SHARE * limit_bytes


class LogEviction:
    """Deletes logs that are complete, oldest first, for as long as the pressure lasts."""

    def __init__(
        self,
        database: Database,
        connection: Redis,
        log_repair: LogRepair,
        *,
        retentions_s: set[int],
        ttl_s: float,
        memory: Callable[[], tuple[int, int]] | None = None,
    ) -> None:
        """log_repair:   only what it has checked is evicted
        retentions_s: how long jobs are kept in this platform
        ttl_s:        how long ended logs are kept otherwise
        memory:       bytes that Redis uses, and its limit; asked of Redis unless given
        """
        self._database = database
        self._redis = connection
        self._retentions_s = retentions_s
        self._log_repair = log_repair
        self._memory = memory or partial(_memory_of, connection)
        self._ttl = timedelta(seconds=ttl_s)
        self._evicted_until = datetime.min.replace(tzinfo=UTC)

    def evict(self) -> bool:
        """Delete a page of complete logs if Redis is short of memory; whether there may be more."""
        used_bytes, limit_bytes = self._memory()
        if not is_under_pressure(used_bytes, limit_bytes):
            return False
        before = self._log_repair.checked_until
        after = max(self._evicted_until, before - self._ttl)
        with self._database.connect() as connection:
            ended = recovery.list_ended(connection, after, before, retentions_s=self._retentions_s, limit=PAGE)
        # A log without its END may be all that is left of a job's result.
        unended = set(list_unended(self._redis, ended.job_ids))
        complete = [job_id for job_id in ended.job_ids if job_id not in unended]
        delete_logs(self._redis, complete)
        self._evicted_until = ended.until
        if complete:
            log.warning("ended_logs_evicted", num_logs=len(complete), used_bytes=used_bytes)
        return len(ended.job_ids) >= PAGE


def _memory_of(connection: Redis) -> tuple[int, int]:
    memory = connection.info("memory")
    return int(memory["used_memory"]), int(memory.get("maxmemory", 0))
