"""Logs that lose their end, or everything, while a worker writes them."""

import threading
from collections.abc import Iterator
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis
from redis.exceptions import RedisError

from storage.broker.event_log import TAPS_KEY, LogWriter, Row, list_tails, log_key, read_log, reader_channel
from storage.broker.redis_client import connect, connect_once
from storage.contract import End, EntryKind, JobStatus, TokenEvent
from tests.waiting import wait_until
from workers.publishing.log_entries import end_row, missing_rows, start_row, tokens_row
from workers.publishing.publisher import Publisher, Watch

JOBS = ("cmpl-a", "cmpl-b", "cmpl-c")
END = End(status=JobStatus.COMPLETED, usage=None, ended_at=1_800_000_000)


class Memory:
    """A worker's memory of its jobs, and the publisher that writes it down."""

    def __init__(self, url: str, client: Redis) -> None:
        self.client = client
        self.entries: dict[str, list[tuple[TokenEvent, ...]]] = {}
        self.errors: list[BaseException] = []
        self.publisher = Publisher(
            lambda: LogWriter(connect_once(url), "memory"), partial(read_log, client), self.errors.append
        )
        self.publisher.start(Watch(on_fenced=self.errors.append, missing=self._missing))  # type: ignore[arg-type]

    def _missing(self) -> list[Row]:
        tails = list_tails(self.client, list(self.entries))
        return [row for job_id, known in self.entries.items() for row in missing_rows(job_id, 1, known, tails[job_id])]

    def step(self, *job_ids: str) -> None:
        """Generate an entry of each job, and return once Redis has them."""
        rows: list[Row] = []
        for job_id in job_ids:
            if job_id not in self.entries:
                rows.append(start_row(job_id, 1))
            known = self.entries.setdefault(job_id, [])
            known.append((TokenEvent(choice=0, token_ids=(len(known),), text=f"{len(known)}"),))
            rows.append(tokens_row(job_id, 1, len(known), known[-1]))
        self.put(*rows)

    def put(self, *rows: Row) -> None:
        done = threading.Event()
        self.publisher.put_rows(*rows, then=done.set)
        assert done.wait(10.0), self.errors

    def log(self, job_id: str) -> list[tuple[TokenEvent, ...]]:
        """What a late reader finds, which must have no hole."""
        found = read_log(self.client, job_id)
        assert [entry.seq for entry in found] == list(range(len(found)))
        assert [entry.kind for entry in found[:1]] == [EntryKind.START] * bool(found)
        return [entry.tokens for entry in found[1:]]

    def restart(self, num_lost: int) -> None:
        """As a Redis that was killed: connections break, and each log comes back without its last entries."""
        for job_id in self.entries:
            key = log_key(job_id)
            kept = self.client.xrange(key)[:-num_lost] if num_lost else self.client.xrange(key)
            self.client.delete(key)
            for entry_id, fields in kept:
                self.client.xadd(key, fields, id=entry_id)
        self.client.client_kill_filter(_type="normal", skipme=True)

    def stop(self) -> None:
        self.publisher.stop(5.0)
        assert self.errors == []


@pytest.fixture
def memory(redis_url: str, redis_client: Redis) -> Iterator[Memory]:
    made = Memory(redis_url, redis_client)
    yield made
    made.stop()


ACTS = st.one_of(
    st.lists(st.sampled_from(JOBS), min_size=1, unique=True).map(lambda names: ("step", names)),
    st.just(("flush", [])),
    st.integers(0, 4).map(lambda num_lost: ("restart", [num_lost])),
    st.sampled_from(JOBS).map(lambda name: ("lose", [name])),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(acts=st.lists(ACTS, max_size=12))
def test_no_late_reader_ever_finds_a_hole(redis_server_url: str, acts: list[tuple[str, list[str]]]) -> None:
    with connect(redis_server_url) as client:
        client.flushall()
        memory = Memory(redis_server_url, client)
        for name, arguments in acts:
            match name:
                case "step":
                    memory.step(*arguments)
                    assert all(memory.log(job_id) == memory.entries[job_id] for job_id in arguments)
                case "flush":
                    client.flushall()
                case "lose":
                    client.delete(log_key(arguments[0]))
                case _:
                    memory.restart(int(arguments[0]))
            for job_id, known in memory.entries.items():
                assert memory.log(job_id) == known[: len(memory.log(job_id))]
        memory.step(*JOBS)
        assert {job_id: memory.log(job_id) for job_id in JOBS} == memory.entries
        memory.stop()


def test_a_connection_that_broke_in_silence_is_noticed(memory: Memory) -> None:
    for _ in range(5):
        memory.step("cmpl-a")

    memory.restart(3)
    memory.step("cmpl-b")

    assert memory.log("cmpl-a") == memory.entries["cmpl-a"]


def test_a_keyframe_is_split_into_several_calls(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    for room in ("workers.publishing.publisher", "storage.broker.event_log"):
        monkeypatch.setattr(f"{room}.MAX_ROWS", 4)
    for _ in range(11):
        memory.step("cmpl-a", "cmpl-b")

    memory.client.flushall()
    memory.step("cmpl-b")

    assert memory.log("cmpl-a") == memory.entries["cmpl-a"]
    assert memory.log("cmpl-b") == memory.entries["cmpl-b"]


def test_a_full_redis_is_waited_for_and_nothing_is_lost_or_published_twice(memory: Memory) -> None:
    memory.step("cmpl-a")
    memory.client.config_resetstat()
    waiting = threading.Thread(target=lambda: [memory.step("cmpl-a") for _ in range(3)])
    memory.client.config_set("maxmemory", "1")
    try:
        waiting.start()
        wait_until(lambda: memory.client.info("errorstats").get("errorstat_OOM"), 5.0, "a refusal")
    finally:
        memory.client.config_set("maxmemory", "0")
    waiting.join(10.0)

    assert memory.log("cmpl-a") == memory.entries["cmpl-a"]
    assert len(memory.entries["cmpl-a"]) == 4


def test_an_end_after_a_lost_log_is_published_and_creates_no_log(memory: Memory) -> None:
    memory.step("cmpl-a")
    del memory.entries["cmpl-a"]
    memory.client.flushall()

    with memory.client.pubsub(ignore_subscribe_messages=True) as channel:
        channel.subscribe(reader_channel("test"))
        assert channel.get_message(timeout=1.0) is None
        memory.client.sadd(TAPS_KEY, "test")
        memory.put(end_row("cmpl-a", 1, 1, END))
        message = channel.get_message(timeout=5.0)

    assert message is not None
    assert b"completed" in message["data"]
    assert memory.client.keys("tokenpost:log:*") == []


def test_rows_of_a_job_that_nobody_remembers_are_dropped(memory: Memory) -> None:
    memory.put(tokens_row("cmpl-a", 1, 7, ()))

    assert memory.client.keys() == []


def test_a_call_is_made_again_until_redis_answers(memory: Memory) -> None:
    answers = [RedisError("away"), RedisError("away"), None]
    done = threading.Event()

    def call() -> None:
        if error := answers.pop(0):
            raise error

    memory.publisher.put_call(call, then=done.set)
    memory.step(JOBS[0])

    assert done.is_set()
    assert answers == []
    assert memory.log(JOBS[0]) == memory.entries[JOBS[0]]
