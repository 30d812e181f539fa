"""The event log: fenced, idempotent, in order, and reported to the channel once."""

import re
from collections.abc import Iterator

import pytest
import redis
from redis.client import PubSub

from storage.broker import event_log
from storage.broker.append_script import SCRIPT
from storage.broker.event_log import LogWriter, PublishedRow, Refused, Row, Tail
from storage.broker.redis_client import connect, connect_async, connect_once
from storage.contract import End, EntryKind, Failure, FinishReason, JobStatus, LogEntry, TokenEvent
from tests.services import running_redis
from tests.storage.examples import RESULT, USAGE
from tests.waiting import wait_until

END = End(status=JobStatus.COMPLETED, usage=USAGE, ended_at=1_800_000_000)


@pytest.fixture
def channel(redis_client: redis.Redis) -> Iterator[PubSub]:
    with redis_client.pubsub(ignore_subscribe_messages=True) as subscriber:  # type: ignore[no-untyped-call]
        _listen(redis_client, subscriber, "test")
        redis_client.sadd(event_log.TAPS_KEY, "test")
        yield subscriber


def _listen(redis_client: redis.Redis, subscriber: PubSub, reader: str) -> None:
    channel = event_log.reader_channel(reader)
    subscriber.subscribe(channel)
    wait_until(lambda: redis_client.pubsub_numsub(channel)[0][1] == 1)


@pytest.fixture
def readers(redis_client: redis.Redis) -> Iterator[dict[str, PubSub]]:
    """Two API processes that listen."""
    subscribers = {name: redis_client.pubsub(ignore_subscribe_messages=True) for name in ("api_1", "api_2")}  # type: ignore[no-untyped-call]
    for name, subscriber in subscribers.items():
        _listen(redis_client, subscriber, name)
    yield subscribers
    for subscriber in subscribers.values():
        subscriber.close()


def _read_by(redis_client: redis.Redis, reader: str, *job_ids: str) -> None:
    for job_id in job_ids:
        event_log.add_reader(redis_client, job_id, reader)


def _published(channel: PubSub, num_messages: int) -> list[list[PublishedRow]]:
    blobs: list[bytes] = []

    def receive() -> bool:
        message = channel.get_message(timeout=0.01)
        if message is not None:
            blobs.append(message["data"])
        return len(blobs) >= num_messages

    if num_messages:
        wait_until(receive)
    assert channel.get_message(timeout=0.02) is None
    return [event_log.decode_batch(blob) for blob in blobs]


def _start(job_id: str, attempt: int) -> Row:
    return (job_id, attempt, 0, EntryKind.START, b"")


def _tokens(job_id: str, attempt: int, seq: int, text: str = "x") -> Row:
    events = [TokenEvent(choice=0, token_ids=(seq,), text=text)]
    return (job_id, attempt, seq, EntryKind.TOKENS, event_log.encode_tokens(events))


def _end(job_id: str, attempt: int, seq: int) -> Row:
    return (job_id, attempt, seq, EntryKind.END, event_log.encode_end(END))


def _texts(rows: list[Row]) -> list[PublishedRow]:
    return [(job_id, attempt, seq, kind, data.decode()) for job_id, attempt, seq, kind, data in rows]


def _ids(redis_client: redis.Redis, job_id: str) -> list[tuple[int, int]]:
    return [(entry.attempt, entry.seq) for entry in event_log.read_log(redis_client, job_id)]


def test_what_is_appended_is_read_back_and_published_in_order(redis_client: redis.Redis, channel: PubSub) -> None:
    rows: list[Row] = [_start("a", 1), _start("b", 1)]
    data = [event_log.encode_tokens(events) for events in RESULT.entries]
    rows += [("a", 1, number, EntryKind.TOKENS, encoded) for number, encoded in enumerate(data, start=1)]
    rows.append(_end("a", 1, 3))
    assert LogWriter(redis_client, "w1").append(rows) == Refused([], [])

    assert event_log.read_log(redis_client, "a") == [
        LogEntry(attempt=1, seq=0, kind=EntryKind.START),
        LogEntry(attempt=1, seq=1, kind=EntryKind.TOKENS, tokens=RESULT.entries[0]),
        LogEntry(attempt=1, seq=2, kind=EntryKind.TOKENS, tokens=RESULT.entries[1]),
        LogEntry(attempt=1, seq=3, kind=EntryKind.END, end=END),
    ]
    (published,) = _published(channel, 1)
    assert published == _texts(rows)
    own = [row for row in published if row[0] == "a"]
    assert [event_log.decode_entry(*row[1:]) for row in own] == event_log.read_log(redis_client, "a")


def test_a_log_is_read_from_behind_an_entry(redis_client: redis.Redis) -> None:
    writer = LogWriter(redis_client, "w1")
    writer.append([_start("a", 1), *(_tokens("a", 1, seq) for seq in range(1, 6))])
    writer.append([_start("a", 2), _tokens("a", 2, 6)])

    behind = [(entry.attempt, entry.seq) for entry in event_log.read_log(redis_client, "a", (1, 4))]
    assert behind == [(1, 5), (2, 0), (2, 6)]
    assert [entry.seq for entry in event_log.read_log(redis_client, "a", (2, 6))] == []
    assert event_log.read_log(redis_client, "absent") == []


def test_a_batch_may_be_sent_twice(redis_client: redis.Redis, channel: PubSub) -> None:
    writer = LogWriter(redis_client, "w1")
    batch = [_start("a", 1), _tokens("a", 1, 1), _start("b", 1)]
    assert writer.append(batch) == Refused([], [])
    assert writer.append(batch) == Refused([], [])
    assert writer.append([*batch, _tokens("a", 1, 2, 'ü"\\')]) == Refused([], [])

    assert _ids(redis_client, "a") == [(1, 0), (1, 1), (1, 2)]
    assert _ids(redis_client, "b") == [(1, 0)]
    assert _published(channel, 2) == [_texts(batch), _texts([_tokens("a", 1, 2, 'ü"\\')])]


def test_an_empty_batch_is_nothing(redis_client: redis.Redis, channel: PubSub) -> None:
    assert LogWriter(redis_client, "w1").append([]) == Refused([], [])
    assert _published(channel, 0) == []


def test_a_log_begins_with_a_start_or_is_reported_lost(redis_client: redis.Redis, channel: PubSub) -> None:
    writer = LogWriter(redis_client, "w1")
    refused = writer.append([_tokens("a", 1, 57), _start("b", 1), _tokens("a", 1, 58), _end("c", 1, 9)])

    assert refused == Refused([], ["a"])
    assert redis_client.keys("tokenpost:log:*") == [event_log.log_key("b").encode()]
    # An end is reported all the same: its row says everything.
    (published,) = _published(channel, 1)
    assert published == _texts([_start("b", 1), _end("c", 1, 9)])


def test_a_client_of_one_connection_ends_with_it(redis_client: redis.Redis, redis_url: str) -> None:
    once = connect_once(redis_url)
    LogWriter(once, "w1").append([_start("a", 1)])
    redis_client.client_kill_filter(_type="normal", skipme=True)

    for _ in range(3):
        with pytest.raises(redis.ConnectionError):
            LogWriter(once, "w1").append([_tokens("a", 1, 1)])
    once.close()
    assert _ids(redis_client, "a") == [(1, 0)]


def test_an_older_attempt_is_fenced_and_its_neighbours_are_not(redis_client: redis.Redis, channel: PubSub) -> None:
    old, new = LogWriter(redis_client, "old"), LogWriter(redis_client, "new")
    old.append([_start("a", 1), _tokens("a", 1, 1)])
    new.append([_start("a", 2)])
    assert old.append([_tokens("a", 1, 2), _start("b", 1), _tokens("a", 1, 3), _end("a", 1, 4)]).fenced == ["a"]
    assert old.append([_tokens("a", 1, 2)]).fenced == ["a"]
    new.append([_tokens("a", 2, 2)])

    assert _ids(redis_client, "a") == [(1, 0), (1, 1), (2, 0), (2, 2)]
    published = [row[:3] for rows in _published(channel, 4) for row in rows]
    assert published == [("a", 1, 0), ("a", 1, 1), ("a", 2, 0), ("b", 1, 0), ("a", 2, 2)]


def test_an_end_without_a_worker_closes_the_log_for_the_orphans_worker(redis_client: redis.Redis) -> None:
    writer = LogWriter(redis_client, "w1")
    writer.append([_start("a", 1), _tokens("a", 1, 1)])
    end = End(status=JobStatus.FAILED, usage=None, ended_at=5, failure=Failure(code="worker_lost", message="ü"))
    assert event_log.append_end(redis_client, "a", 1, end)

    assert writer.append([_tokens("a", 1, 2)]).fenced == ["a"]
    assert event_log.read_log(redis_client, "a")[-1] == LogEntry(attempt=2, seq=0, kind=EntryKind.END, end=end)
    assert event_log.append_end(redis_client, "queued", 0, end)
    assert _ids(redis_client, "queued") == [(1, 0)]
    assert not event_log.append_end(redis_client, "a", 0, end)


def test_logs_expire_later_while_running_than_when_ended(redis_client: redis.Redis) -> None:
    writer = LogWriter(redis_client, "w1", ttl_running_s=1000, ttl_ended_s=100)
    writer.append([_start("a", 1), _tokens("a", 1, 1)])
    assert 990 <= redis_client.ttl(event_log.log_key("a")) <= 1000
    redis_client.persist(event_log.log_key("a"))
    writer.append([_tokens("a", 1, seq) for seq in range(2, 300)])
    assert 990 <= redis_client.ttl(event_log.log_key("a")) <= 1000
    writer.append([_end("a", 1, 300)])
    assert 90 <= redis_client.ttl(event_log.log_key("a")) <= 100


def test_a_log_begun_anew_after_its_loss_expires_too(redis_client: redis.Redis) -> None:
    writer = LogWriter(redis_client, "w1", ttl_running_s=1000)
    writer.append([_start("a", 1)])
    assert redis_client.ttl(event_log.log_key("a")) > 0


def test_a_refusal_for_another_reason_is_an_error_and_nothing_counts_as_fenced(redis_client: redis.Redis) -> None:
    redis_client.set(event_log.log_key("a"), "not a stream")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        LogWriter(redis_client, "w1").append([_tokens("a", 1, 1)])


def test_many_rows_are_appended_in_calls_that_others_find_time_between(
    redis_client: redis.Redis, channel: PubSub
) -> None:
    rows = [_start("cmpl-a", 1), *(_tokens("cmpl-a", 1, seq) for seq in range(1, 5000))]

    assert LogWriter(redis_client, "w").append_many(rows) == Refused([], [])
    assert LogWriter(redis_client, "w").append_many([_tokens("cmpl-b", 1, 1)]) == Refused([], ["cmpl-b"])

    assert len(_ids(redis_client, "cmpl-a")) == 5000
    assert [len(batch) for batch in _published(channel, 3)] == [2048, 2048, 904]


def test_a_redis_that_forgot_the_script_learns_it_again(redis_client: redis.Redis) -> None:
    writer = LogWriter(redis_client, "w1")
    writer.append([_start("a", 1)])
    redis_client.script_flush()
    assert writer.append([_tokens("a", 1, 1)]) == Refused([], [])
    assert _ids(redis_client, "a") == [(1, 0), (1, 1)]


def test_any_bytes_of_text_survive_a_repacked_batch(redis_client: redis.Redis, channel: PubSub) -> None:
    writer = LogWriter(redis_client, "w1")
    writer.append([_start("a", 1)])
    texts = ["\x00", "\u2028", "😀" * 300, '"', "x" * 70_000]
    rows = [_tokens("a", 1, seq, text) for seq, text in enumerate(texts, start=1)]
    writer.append([_start("a", 1), *rows])

    assert _published(channel, 2)[1] == _texts(rows)
    assert [entry.tokens[0].text for entry in event_log.read_log(redis_client, "a")[1:]] == texts


def test_what_a_killed_redis_forgot_can_be_reported_and_appended_again() -> None:
    with running_redis(keeps_data=True) as server, connect(server.url) as client:
        writer = LogWriter(client, "w1")
        writer.append([_start("a", 1), *(_tokens("a", 1, seq) for seq in range(1, 4))])
        client.bgrewriteaof()
        assert event_log.list_tails(client, ["a", "absent"]) == {"a": Tail((1, 3), 3), "absent": None}
        server.kill()
        with pytest.raises(redis.ConnectionError):
            writer.append([_tokens("a", 1, 4)])

        server.start()
        tail = event_log.list_tails(client, ["a"])["a"]
        rows = [_start("a", 1), *(_tokens("a", 1, seq) for seq in range(1, 5))]
        writer.append([row for row in rows if tail is None or row[2] > tail.seq])
        assert _ids(client, "a") == [(1, seq) for seq in range(5)]


def test_logs_are_erased(redis_client: redis.Redis) -> None:
    LogWriter(redis_client, "w1").append([_start("a", 1), _start("b", 1), _start("c", 1)])
    event_log.delete_logs(redis_client, ["a", "b", "absent"])
    event_log.delete_logs(redis_client, [])
    assert redis_client.keys(b"*") == [event_log.log_key("c").encode()]


def test_a_cancel_message_carries_the_job() -> None:
    assert event_log.decode_cancel(event_log.encode_cancel("chatcmpl-1")) == "chatcmpl-1"
    assert event_log.control_channel("w1") == "tokenpost:control:w1"


def test_token_events_are_compact() -> None:
    event = TokenEvent(choice=1, token_ids=(5, 2), text="ü", finish=FinishReason.LENGTH)
    assert event_log.encode_tokens([event]) == '[[1,[5,2],"ü","length",null]]'.encode()


async def test_the_log_is_read_on_an_event_loop_with_the_same_parser(redis_client: redis.Redis) -> None:
    LogWriter(redis_client, "w1").append([_start("a", 1), _tokens("a", 1, 1), _tokens("a", 1, 2)])
    client = connect_async(f"unix://{redis_client.connection_pool.connection_kwargs['path']}")
    raw = await client.xrange(event_log.log_key("a"), min=event_log.range_start((1, 0)))
    await client.aclose()
    assert event_log.parse_entries(raw) == event_log.read_log(redis_client, "a", (1, 0))


def test_an_entry_of_a_later_version_is_no_start(redis_client: redis.Redis) -> None:
    """As during a rolling upgrade: a newer worker wrote it, an older process reads the log."""
    writer = LogWriter(redis_client, "newer")
    writer.append([_start("job", 1), _tokens("job", 1, 1), ("job", 1, 2, 7, b"[1]"), _tokens("job", 1, 3)])

    entries = event_log.read_log(redis_client, "job")

    assert [entry.kind for entry in entries] == [
        EntryKind.START,
        EntryKind.TOKENS,
        EntryKind.UNKNOWN,
        EntryKind.TOKENS,
    ]
    assert entries[2] == LogEntry(attempt=1, seq=2, kind=EntryKind.UNKNOWN)


def test_a_process_gets_the_entries_of_the_jobs_that_it_reads_and_no_others(
    redis_client: redis.Redis, readers: dict[str, PubSub]
) -> None:
    _read_by(redis_client, "api_1", "a", "b")
    _read_by(redis_client, "api_2", "b")
    rows = [_start("a", 1), _start("b", 1), _start("unread", 1), _tokens("b", 1, 1, "x")]

    LogWriter(redis_client, "w").append(rows)

    assert _published(readers["api_1"], 1) == [_texts([rows[0], rows[1], rows[3]])]
    assert _published(readers["api_2"], 1) == [_texts([rows[1], rows[3]])]


def test_nothing_is_published_of_a_job_that_is_not_read(redis_client: redis.Redis, readers: dict[str, PubSub]) -> None:
    LogWriter(redis_client, "w").append([_start("a", 1)])

    assert _published(readers["api_1"], 0) == []
    assert len(event_log.read_log(redis_client, "a")) == 1


def test_a_reader_that_died_is_removed_and_one_that_listens_stays(
    redis_client: redis.Redis, readers: dict[str, PubSub]
) -> None:
    _read_by(redis_client, "api_1", "a")
    _read_by(redis_client, "dead", "a")
    redis_client.sadd(event_log.TAPS_KEY, "dead tap")

    LogWriter(redis_client, "w").append([_start("a", 1)])

    assert redis_client.smembers(event_log.readers_key("a")) == {b"api_1"}
    assert not redis_client.exists(event_log.TAPS_KEY)


def test_the_end_of_a_job_forgets_its_readers(redis_client: redis.Redis, readers: dict[str, PubSub]) -> None:
    _read_by(redis_client, "api_1", "a")
    writer = LogWriter(redis_client, "w")
    writer.append([_start("a", 1)])
    assert redis_client.exists(event_log.readers_key("a"))

    writer.append([_end("a", 1, 1)])

    assert len(_published(readers["api_1"], 2)) == 2
    assert not redis_client.exists(event_log.readers_key("a"))


def test_the_script_touches_no_key_that_is_not_declared(redis_client: redis.Redis) -> None:
    pattern = re.compile(r"redis\.p?call\('(\w+)', ([^,)]+)")

    first_arguments = {argument for command, argument in pattern.findall(SCRIPT) if command != "PUBLISH"}

    assert first_arguments == {"key", "KEYS[1]", "KEYS[2 * place + 1]"}
    assert "local key, id = KEYS[2 * place]" in SCRIPT
