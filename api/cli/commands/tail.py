"""`tokenpost jobs tail`: follows one job's event log in a terminal, from its first entry to its END."""

import sys
from collections.abc import Iterator
from typing import cast

import msgspec
from redis import Redis

from storage.broker.event_log import log_key, parse_entries
from storage.contract import End, EntryKind, LogEntry, TokenEvent
from storage.database.connections import Database
from storage.errors import JobNotFound
from storage.jobs import jobs, records
from storage.jobs.records import JobRecord

# How long one read of the log blocks, below the socket's timeout; then the row is read to see whether the job ended.
_WAIT_MS = 1000
_RawEntry = tuple[bytes, dict[bytes, bytes]]


def follow(database: Database, redis: Redis, job_id: str, *, as_json: bool) -> End:
    """Write the job's text (or its entries as JSON lines) to stdout; returns its END."""
    text = _Text()
    for entry in _entries(database, redis, job_id):
        sys.stdout.write(msgspec.json.encode(entry).decode() + "\n" if as_json else text.of(entry))
        sys.stdout.flush()
        if entry.end is not None:
            return entry.end
    raise AssertionError("a log ends with an END")


def _entries(database: Database, redis: Redis, job_id: str) -> Iterator[LogEntry]:
    """The job's log entries in order, live; from its row when the log was erased. The last one is its END."""
    key, last = log_key(job_id), "0-0"
    seq = 0
    while True:
        job = _get(database, job_id)
        for entry in _read(redis, key, last):
            last = f"{entry.attempt}-{entry.seq}"
            # A requeued job starts another attempt; its token numbers continue.
            seq = max(seq, entry.seq)
            yield entry
            if entry.end is not None:
                return
        if job.status.is_terminal and not redis.exists(key):
            yield from _stored(job, seq)
            return


def _read(redis: Redis, key: str, last: str) -> list[LogEntry]:
    # XREAD's reply is a list of [key, entries] pairs, None after the wait.
    reply = cast("list[tuple[bytes, list[_RawEntry]]] | None", redis.xread({key: last}, block=_WAIT_MS))
    return [entry for _, raw in reply or [] for entry in parse_entries(raw)]


def _stored(job: JobRecord, after_seq: int) -> Iterator[LogEntry]:
    entries = records.result_of(job).entries
    for index, tokens in enumerate(entries[after_seq:], start=after_seq + 1):
        yield LogEntry(attempt=job.attempt, seq=index, kind=EntryKind.TOKENS, tokens=tokens)
    yield LogEntry(attempt=job.attempt, seq=len(entries) + 1, kind=EntryKind.END, end=records.end_of(job))


def _get(database: Database, job_id: str) -> JobRecord:
    with database.connect() as connection:
        job = jobs.find_result(connection, job_id)
    if job is None:
        raise JobNotFound(f"there is no job {job_id}; it may have been erased")
    return job


class _Text:
    """Formats the text of the choices; a heading marks each change of choice."""

    def __init__(self) -> None:
        self._choice = 0

    def of(self, entry: LogEntry) -> str:
        """The text that one more entry adds."""
        return "".join(map(self._of_event, entry.tokens)) + ("\n" if entry.end is not None else "")

    def _of_event(self, event: TokenEvent) -> str:
        if event.choice == self._choice or not event.text:
            return event.text
        self._choice = event.choice
        return f"\n[choice {event.choice}] {event.text}"
