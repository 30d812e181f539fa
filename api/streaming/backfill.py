"""What a subscription missed, from where it still lies: the log, and behind the log the row."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import structlog
from sqlalchemy import Connection

from api.caches.database_reads import Reader
from api.protocol.answer.outcome import entries_of
from api.streaming.log_reader import PAGE_SIZE, LogReader
from api.streaming.subscription import Subscription
from api.streaming.subscription_states import OPEN
from storage.broker.event_log import EntryId
from storage.contract import LogEntry
from storage.errors import JobNotFound, StorageUnavailable
from storage.jobs import jobs, records

_NUM_LOGS = 32
_NUM_ROWS = 500
# A cancelled or failed job's partial result is stored by its worker or, if that died, by the sweeper; later than this
# nobody will.
_SETTLING_TIME = timedelta(seconds=20)

log = structlog.get_logger()


class Backfill:
    """Fills gaps of subscriptions; one that it cannot fill now is left in the state GAP, and is tried again."""

    def __init__(self, logs: LogReader, reads: Reader, *, reader: str) -> None:
        """reader: this process, as Redis knows it: entries of the jobs that were filled are published to its channel"""
        self.reader = reader
        self._logs = logs
        self._reads = reads

    async def fill(self, subscriptions: Sequence[Subscription]) -> None:
        """Give each what its log holds behind its position; all of them are filling already."""
        chunks = [subscriptions[start : start + _NUM_LOGS] for start in range(0, len(subscriptions), _NUM_LOGS)]
        await asyncio.gather(*map(self._fill, chunks))

    async def _fill(self, subscriptions: Sequence[Subscription]) -> None:
        positions: list[tuple[Subscription, EntryId | None]] = [(one, one.position) for one in subscriptions]
        try:
            while positions:
                wanted = [(one.job_id, after) for one, after in positions]
                pages = await self._logs.read_pages(wanted, reader=self.reader)
                positions = [
                    (one, (page[-1].attempt, page[-1].seq))
                    for (one, _), page in zip(positions, pages, strict=True)
                    if _take_page(one, page)
                ]
        except StorageUnavailable as error:
            log.warning("log_unread", error=error.message, num_logs=len(positions))
        finally:
            unread = {one for one, _ in positions}
            for one in subscriptions:
                one.finish_filling(is_unread=one in unread)

    async def forget(self, job_ids: Sequence[str]) -> None:
        """Have nothing more of these jobs published to this process; what comes all the same is ignored."""
        try:
            await self._logs.forget(job_ids, reader=self.reader)
        except StorageUnavailable as error:
            log.warning("readers_not_removed", error=error.message, num_jobs=len(job_ids))

    async def check(self, subscriptions: Sequence[Subscription]) -> None:
        """Look at the rows of silent jobs: end what has ended, and fill what runs."""
        try:
            for start in range(0, len(subscriptions), _NUM_ROWS):
                await self._check(subscriptions[start : start + _NUM_ROWS])
        except StorageUnavailable as error:
            log.warning("rows_unread", error=error.message, num_rows=len(subscriptions))

    async def _check(self, subscriptions: Sequence[Subscription]) -> None:
        job_ids = {one.job_id for one in subscriptions}
        states = await self._reads.ask(lambda connection: jobs.list_states(connection, job_ids))
        status_by_id = {state.job_id: state.status for state in states}
        idle = [one for one in subscriptions if one.state in OPEN]
        for one in idle:
            one.begin_filling()
        await self.fill(idle)
        for one in idle:
            status = status_by_id.get(one.job_id)
            if not one.is_ended and (status is None or status.is_terminal):
                await self.conclude(one)

    async def conclude(self, one: Subscription) -> None:
        """End a subscription from the row of a job that has ended or was erased; nothing while it is unsettled."""
        try:
            entries = await self._reads.ask(lambda connection: rest_of(connection, one.job_id))
        except JobNotFound as error:
            one.fail(error)
        else:
            one.conclude(entries)


def rest_of(connection: Connection, job_id: str) -> list[LogEntry]:
    """The log that an ended job's row stands for; empty while its result is still to come. Raises JobNotFound."""
    job = jobs.find_result(connection, job_id)
    if job is None:
        raise JobNotFound(f"The job '{job_id}' was erased.")
    end = records.end_of(job)
    if end is None or (job.result is None and not _is_left(job.ended_at)):
        return []
    return list(entries_of(records.result_of(job), end))


def _is_left(ended_at: datetime | None) -> bool:
    return ended_at is not None and datetime.now(UTC) - ended_at > _SETTLING_TIME


def _take_page(one: Subscription, page: list[LogEntry]) -> bool:
    """Whether there may be more behind the page."""
    return one.take_logged(page) and len(page) == PAGE_SIZE
