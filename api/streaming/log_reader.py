"""Reading event logs from Redis on the event loop: in pages, many logs in one round trip."""

import asyncio
from collections.abc import Sequence

from redis.asyncio import Redis
from redis.exceptions import RedisError

from storage.broker.event_log import EntryId, log_key, parse_entries, range_start
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

    async def read_pages(self, positions: Sequence[tuple[str, EntryId | None]]) -> list[list[LogEntry]]:
        """For each (job id, entry) the next page behind that entry; a full page may have more behind it."""
        async with self._room:
            try:
                pipeline = self._redis.pipeline(transaction=False)
                for job_id, after in positions:
                    pipeline.xrange(log_key(job_id), min=range_start(after), count=PAGE_SIZE)
                return [parse_entries(raw) for raw in await pipeline.execute()]
            except (RedisError, OSError) as error:
                raise StorageUnavailable(f"Redis does not answer: {error}") from error
