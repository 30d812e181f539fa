"""The event log of each job in Redis: token events in order, appended by one script call per engine step.

A job's log is a stream at `log_key`; entry ids are `{attempt}-{seq}`, and since ids only grow, Redis itself refuses a
worker whose attempt is over. The same script publishes what it accepted, to the API processes that read these jobs.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from redis import Redis
from redis.exceptions import NoScriptError

from storage.broker.append_script import READER_CHANNEL_PREFIX, SCRIPT, SCRIPT_SHA
from storage.contract import End, EntryKind, LogEntry, TokenEvent

# The members of this set get everything that is published: for people and programs who watch.
TAPS_KEY = "tokenpost:taps"
# How long an ended log is kept for readers that are in the middle of it; the row replays the same bytes later.
ENDED_TTL_S = 90
# One call stays under this, so that Redis has time for others between: 131,072 rows at once take it two seconds.
MAX_ROWS = 2048
_LOG_PREFIX = "tokenpost:log:"
_READERS_PREFIX = "tokenpost:readers:"
# A reader is removed when the job ends or the reader leaves; this is for jobs that never run.
_READERS_TTL_S = 86400
_CONTROL_PREFIX = "tokenpost:control:"

# What is appended: job id, attempt, seq, kind, data (see encode_tokens, encode_end; empty for START).
Row = tuple[str, int, int, int, bytes]
# The same as it is published. Its data is text, because Redis' msgpack knows no bytes (type bin) but text.
PublishedRow = tuple[str, int, int, int, str]
EntryId = tuple[int, int]

_tokens_encoder = msgspec.json.Encoder()
_tokens_decoder = msgspec.json.Decoder(tuple[TokenEvent, ...])
_end_decoder = msgspec.json.Decoder(End)
_batch_encoder = msgspec.msgpack.Encoder()
_batch_decoder = msgspec.msgpack.Decoder(tuple[str, int, list[PublishedRow]])


def log_key(job_id: str) -> str:
    """The Redis key of a job's log."""
    return _LOG_PREFIX + job_id


def readers_key(job_id: str) -> str:
    """The Redis key of the set of processes that read a job's log live."""
    return _READERS_PREFIX + job_id


def reader_channel(reader: str) -> str:
    """The channel on which a process gets the entries of the jobs that it reads."""
    return READER_CHANNEL_PREFIX + reader


def add_reader(pipeline: Any, job_id: str, reader: str) -> None:  # Any: sync and asyncio pipelines share no type
    """Queue the commands that make a process a reader of a job; a log that is read after them has no gap."""
    pipeline.sadd(readers_key(job_id), reader)
    pipeline.expire(readers_key(job_id), _READERS_TTL_S)


def control_channel(worker_id: str) -> str:
    """The channel on which a worker receives cancellations; its messages are `encode_cancel`'s."""
    return _CONTROL_PREFIX + worker_id


def encode_cancel(job_id: str) -> bytes:
    """The control message that a running job was cancelled."""
    return msgspec.json.encode({"cancel": job_id})


def decode_cancel(message: bytes) -> str:
    """The id of the job that was cancelled."""
    return msgspec.json.decode(message, type=dict[str, str])["cancel"]


def encode_tokens(events: Iterable[TokenEvent]) -> bytes:
    """The data of a TOKENS entry: one engine step's events of one job, as JSON."""
    return _tokens_encoder.encode(tuple(events))


def encode_end(end: End) -> bytes:
    """The data of an END entry, as JSON."""
    return _tokens_encoder.encode(end)


def decode_entry(attempt: int, seq: int, kind: int, data: bytes | str) -> LogEntry:
    """The entry of a row; one of a kind that this version does not know has kind UNKNOWN and no content."""
    if kind == EntryKind.TOKENS:
        return LogEntry(attempt=attempt, seq=seq, kind=EntryKind.TOKENS, tokens=_tokens_decoder.decode(data))
    if kind == EntryKind.END:
        return LogEntry(attempt=attempt, seq=seq, kind=EntryKind.END, end=_end_decoder.decode(data))
    return LogEntry(attempt=attempt, seq=seq, kind=EntryKind.START if kind == EntryKind.START else EntryKind.UNKNOWN)


def decode_batch(blob: bytes) -> list[PublishedRow]:
    """The rows of one message on a reader's channel, in order; `decode_entry(*row[1:])` gives a row's entry."""
    return _batch_decoder.decode(blob)[2]


class Refused(msgspec.Struct, frozen=True):
    """Jobs that rows were not appended for.

    fenced: a higher attempt owns the log
    lost:   there is no log, and the rows do not begin one
    """

    fenced: list[str]
    lost: list[str]


class Tail(msgspec.Struct, frozen=True):
    """Where a log ends: the id of its newest entry, and the number of its newest TOKENS entry (0 before the first)."""

    last: EntryId
    seq: int


class LogWriter:
    """Appends to logs; of one thread. An append may be repeated after an error: Redis knows what it has."""

    def __init__(
        self, redis: Redis, source: str, *, ttl_running_s: int = 86400, ttl_ended_s: int = ENDED_TTL_S
    ) -> None:
        """source: the writer's id, for people who watch the channel"""
        self._redis = redis
        self._source = source
        self._batch_no = 0
        self._arguments = (str(ttl_running_s), str(ttl_ended_s))

    def append(self, batch: Sequence[Row]) -> Refused:
        """The jobs whose rows were refused; all other rows are in their logs.

        Raises redis.RedisError, after which some or all rows may be in.
        """
        if not batch:
            return Refused([], [])
        self._batch_no += 1
        rows = [(job_id, attempt, seq, kind, data.decode()) for job_id, attempt, seq, kind, data in batch]
        blob = _batch_encoder.encode((self._source, self._batch_no, rows))
        keys = _keys_of(batch)
        try:
            fenced, lost = self._redis.evalsha(SCRIPT_SHA, len(keys), *keys, blob, *self._arguments)
        except NoScriptError:
            fenced, lost = self._redis.eval(SCRIPT, len(keys), *keys, blob, *self._arguments)
        return Refused([job_id.decode() for job_id in fenced], [job_id.decode() for job_id in lost])

    def append_many(self, rows: Sequence[Row]) -> Refused:
        """As `append`, in as many calls as it takes."""
        some = [self.append(rows[start : start + MAX_ROWS]) for start in range(0, len(rows), MAX_ROWS)]
        return Refused([one for each in some for one in each.fenced], [one for each in some for one in each.lost])

    def close(self) -> None:
        """Let go of the connection."""
        self._redis.close()


def _keys_of(batch: Sequence[Row]) -> list[str]:
    """The script's KEYS: each job's in the order in which the jobs first occur."""
    keys = [TAPS_KEY]
    for job_id in dict.fromkeys(row[0] for row in batch):
        keys += (_LOG_PREFIX + job_id, _READERS_PREFIX + job_id)
    return keys


def append_end(redis: Redis, job_id: str, attempt: int, end: End, *, ttl_ended_s: int = ENDED_TTL_S) -> bool:
    """Whether the END entry `{attempt + 1}-0` of a job that no worker runs is in its log.

    attempt: the row's; for the process that cancels a queued or orphaned job, or fails one
    """
    row = (job_id, attempt + 1, 0, int(EntryKind.END), encode_end(end))
    return not LogWriter(redis, "end", ttl_ended_s=ttl_ended_s).append([row]).fenced


def read_log(redis: Redis, job_id: str, after: EntryId | None = None) -> list[LogEntry]:
    """The entries of a job's log after `after`, in order; empty when there is no log (any more)."""
    return parse_entries(redis.xrange(log_key(job_id), min=range_start(after)))


def range_start(after: EntryId | None) -> str:
    """The lower bound for XRANGE: what lies strictly after an entry, or everything."""
    return "-" if after is None else f"({after[0]}-{after[1]}"


def parse_entries(raw: Iterable[Any] | None) -> list[LogEntry]:
    """The entries that XRANGE replied.

    raw: (id, fields) with bytes throughout; Any, because redis-py's types do not distinguish replies in text and bytes
    """
    entries = []
    for entry_id, fields in raw or ():
        attempt, _, seq = entry_id.partition(b"-")
        entries.append(decode_entry(int(attempt), int(seq), int(fields[b"k"]), fields[b"d"]))
    return entries


def list_tails(redis: Redis, job_ids: Sequence[str]) -> dict[str, Tail | None]:
    """Where each log ends, None where there is none; what a writer checks after Redis was away."""
    pipeline = redis.pipeline(transaction=False)
    for job_id in job_ids:
        pipeline.xrevrange(log_key(job_id), count=1)
    newest = zip(job_ids, pipeline.execute(), strict=True)
    return {job_id: _tail(redis, job_id, parse_entries(raw)) for job_id, raw in newest}


def _tail(redis: Redis, job_id: str, newest: Sequence[LogEntry]) -> Tail | None:
    if newest and newest[0].kind is not EntryKind.TOKENS:
        # Only TOKENS entries carry the count of those before them.
        newest = read_log(redis, job_id)
    if not newest:
        return None
    last = newest[-1]
    seq = max((entry.seq for entry in newest if entry.kind is EntryKind.TOKENS), default=0)
    return Tail((last.attempt, last.seq), seq)


def list_unended(redis: Redis, job_ids: Sequence[str]) -> list[str]:
    """Those jobs whose log does not close with an END, or is not there."""
    pipeline = redis.pipeline(transaction=False)
    for job_id in job_ids:
        pipeline.xrevrange(log_key(job_id), count=1)
    newest = zip(job_ids, pipeline.execute(), strict=True)
    return [job_id for job_id, raw in newest if not raw or int(raw[0][1][b"k"]) != EntryKind.END]


def seal(redis: Redis, job_id: str, *, ttl_s: int = 60) -> None:
    """Leave only the END in the log of a job that was erased while it ran; call it after `append_end`.

    A worker that does not know of the erasure yet would begin a deleted log anew; this END fences it.
    """
    redis.xtrim(log_key(job_id), maxlen=1, approximate=False)
    redis.expire(log_key(job_id), ttl_s)


def delete_logs(redis: Redis, job_ids: Sequence[str]) -> None:
    """Erase the logs of these jobs."""
    if job_ids:
        redis.unlink(*(log_key(job_id) for job_id in job_ids))
