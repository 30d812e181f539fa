"""Log repair: appends the END to logs of ended jobs whose worker died before it could."""

import time
from datetime import UTC, datetime, timedelta

import msgspec
import structlog
from redis import Redis

from storage.broker.event_log import LogWriter, Row, list_unended, read_log
from storage.contract import EntryKind, LogEntry, Result, TokenEvent
from storage.database.connections import Database
from storage.database.group_commit import Writer
from storage.jobs import jobs, records, recovery
from storage.jobs.records import JobRecord
from storage.settings import StorageSettings
from workers.maintenance.duties import PAGE
from workers.publishing.log_entries import end_row, start_row, tokens_row, usage_of

PATIENCE_S = 10.0

log = structlog.get_logger()


class LogRepair:
    """Checks the log of every ended job once, a few seconds after its end."""

    def __init__(
        self, storage: StorageSettings, database: Database, writer: Writer, connection: Redis, *, settling_s: float
    ) -> None:
        """settling_s: how long the process that ended a job has to append its END

        checked_until: jobs that ended before this have complete logs, or none any more
        """
        self._settling_time = timedelta(seconds=settling_s)
        self._database = database
        self._writer = writer
        self._redis = connection
        self._log_writer = LogWriter(
            connection, "sweeper", ttl_running_s=storage.log_ttl_running_s, ttl_ended_s=storage.log_ttl_ended_s
        )
        self._retentions_s = storage.retentions_s
        # The logs of jobs that ended before are not needed any more; their readers use the rows.
        self.checked_until = datetime.now(UTC) - self._settling_time - timedelta(seconds=storage.log_ttl_ended_s)
        # Since when each was seen so.
        self._unsettled: dict[str, float] = {}
        self._unreadable: set[str] = set()

    def repair_ended(self) -> bool:
        """Complete the logs of a page of jobs that ended since the last page; whether there are more.

        By the clocks of the processes that ended them. Where one is off, a log stays open, and its readers use the row.
        """
        before = datetime.now(UTC) - self._settling_time
        with self._database.connect() as connection:
            ended = recovery.list_ended(
                connection, self.checked_until, before, retentions_s=self._retentions_s, limit=PAGE
            )
        for job_id in list_unended(self._redis, ended.job_ids):
            self.repair(job_id)
        self.checked_until = ended.until
        return len(ended.job_ids) == PAGE

    def settle_ended(self) -> bool:
        """Store what came of jobs that ended, by whatever clock, and whose workers have not done so for a while.

        Always everything that is due: those that cannot be read are not counted against the page.
        """
        now = time.monotonic()
        with self._database.connect() as connection:
            unsettled = recovery.list_unsettled(connection, PAGE + len(self._unreadable))
        self._unsettled = {job_id: self._unsettled.get(job_id, now) for job_id in unsettled}
        self._unreadable &= self._unsettled.keys()
        for job_id, since in self._unsettled.items():
            if job_id not in self._unreadable and now - since >= self._settling_time.total_seconds():
                self.repair(job_id)
        return False

    def repair(self, job_id: str) -> None:
        """Complete one ended job's log, and its row if its result was never stored.

        A job that cannot be read (of another version perhaps) is logged and skipped.
        """
        try:
            self._repair(job_id)
        except msgspec.MsgspecError as error:
            self._unreadable.add(job_id)
            log.error("log_not_repaired", job_id=job_id, error=str(error))

    def _repair(self, job_id: str) -> None:
        job = self._find(job_id)
        if job is None or not job.status.is_terminal:
            return
        if job.result is None and not _is_closed(read_log(self._redis, job_id)):
            job = self._settle(job)
        end = None if job is None else records.end_of(job)
        entries = read_log(self._redis, job_id)
        if job is None or end is None or _is_closed(entries):
            return
        result = records.result_of(job).entries
        known = max((entry.seq for entry in entries), default=0)
        # Where the worker stored its result meanwhile, that result is kept, after the START that fenced the worker.
        attempt = max(job.attempt, entries[-1].attempt) if entries else job.attempt
        rows: list[Row] = [] if entries else [start_row(job_id, attempt)]
        rows += [tokens_row(job_id, attempt, seq, result[seq - 1]) for seq in range(known + 1, len(result) + 1)]
        rows.append(end_row(job_id, attempt, len(result), end))
        if self._log_writer.append_many(rows).lost:
            # Redis was emptied in between.
            self._repair(job_id)
            return
        log.warning("log_completed", job_id=job_id, status=job.status, num_entries=len(rows))

    def _settle(self, job: JobRecord) -> JobRecord | None:
        """Store what the log holds as the row's result. The START of an attempt without a worker fences the old one."""
        self._log_writer.append([start_row(job.id, job.attempt + 1)])
        entries = gapless(read_log(self._redis, job.id))
        with self._database.connect() as connection:
            spec = jobs.get_spec(connection, job.id)
        result, usage = Result(entries=entries), usage_of(spec, entries)
        attempt = job.attempt
        done = self._writer.submit(lambda connection: jobs.settle_orphan(connection, job.id, attempt, result, usage))
        done.result(PATIENCE_S)
        return self._find(job.id)

    def _find(self, job_id: str) -> JobRecord | None:
        with self._database.connect() as connection:
            return jobs.find_result(connection, job_id)


def _is_closed(entries: list[LogEntry]) -> bool:
    return any(entry.kind is EntryKind.END for entry in entries)


def gapless(log_entries: list[LogEntry]) -> tuple[tuple[TokenEvent, ...], ...]:
    """The TOKENS entries of a log up to its first gap; entry i has seq i + 1."""
    entries: list[tuple[TokenEvent, ...]] = []
    for entry in log_entries:
        if entry.kind is EntryKind.TOKENS and entry.seq == len(entries) + 1:
            entries.append(entry.tokens)
    return tuple(entries)
