"""Reading event logs from Redis on the event loop: in pages, many logs in one round trip."""

import asyncio
from collections.abc import Sequence

from redis.asyncio import Redis
from redis.exceptions import RedisError

from storage.broker.event_log import EntryId, add_reader, log_key, parse_entries, range_start, readers_key
from storage.contract import LogEntry
from storage.errors import StorageUnavailable

# Entries of one log in one reply: a page takes a millisecond or two to decode.
PAGE_SIZE = 500
# Each reading holds a connection; redis-py raises when its pool is empty rather than wait.
_MAX_READINGS = 32


class LogReader:
    """Reads logs; StorageUnavailable when Redis does not answer."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._room = asyncio.Semaphore(_MAX_READINGS)

    async def read(self, job_id: str) -> list[LogEntry]:
        """All entries of a job's log; empty when there is no log (any more)."""
        entries: list[LogEntry] = []
        after: EntryId | None = None
        while True:
            [page] = await self.read_pages([(job_id, after)])
            entries += page
            if len(page) < PAGE_SIZE:
                return entries
            after = (page[-1].attempt, page[-1].seq)

    async def forget(self, job_ids: Sequence[str], *, reader: str) -> None:
        """Publish nothing more of these jobs to the process."""
        async with self._room:
            try:
                pipeline = self._redis.pipeline(transaction=False)
                for job_id in job_ids:
                    pipeline.srem(readers_key(job_id), reader)
                await pipeline.execute()
            except (RedisError, OSError) as error:
                raise StorageUnavailable(f"Redis does not answer: {error}") from error

    async def read_pages(
        self, positions: Sequence[tuple[str, EntryId | None]], *, reader: str | None = None
    ) -> list[list[LogEntry]]:
        """For each (job id, entry) the next page after that entry; a full page may have more after it.

        reader: a process to which everything that these pages do not hold is published from now on
        """
        async with self._room:
            try:
                pipeline = self._redis.pipeline(transaction=False)
                if reader is not None:
                    for job_id, _ in positions:
                        add_reader(pipeline, job_id, reader)
                for job_id, after in positions:
                    pipeline.xrange(log_key(job_id), min=range_start(after), count=PAGE_SIZE)
                replies = await pipeline.execute()
                return [parse_entries(raw) for raw in replies[len(replies) - len(positions) :]]
            except (RedisError, OSError) as error:
                raise StorageUnavailable(f"Redis does not answer: {error}") from error
