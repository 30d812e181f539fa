"""Tickets: readable by Celery, in order, and never in the way of a process."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest
import redis
from celery.contrib.testing.worker import start_worker
from kombu import Connection, Consumer, Queue

from storage.broker import celery_queue
from storage.broker.celery_queue import TicketPublisher
from storage.broker.ticket_message import GENERATE
from storage.contract import PriorityQueue
from storage.errors import ShuttingDown
from tests.services import RedisServer, running_redis
from tests.waiting import wait_until


@pytest.fixture
def publisher(redis_url: str) -> Iterator[TicketPublisher]:
    running = TicketPublisher(redis_url)
    running.start()
    yield running
    running.stop()


def _consume(redis_url: str, model: str, num_tickets: int) -> list[tuple[object, dict[str, object]]]:
    """Bodies and headers as a kombu consumer gets them."""
    received: list[tuple[object, dict[str, object]]] = []
    with Connection(celery_queue.broker_url(redis_url)) as connection, connection.channel() as channel:

        def take(body: object, message: object) -> None:
            received.append((body, message.headers))  # type: ignore[attr-defined]  # kombu's callbacks take any message
            message.ack()  # type: ignore[attr-defined]

        with Consumer(channel, [Queue(celery_queue.queue_of(model))], callbacks=[take], accept=["json"]):
            while len(received) < num_tickets:
                connection.drain_events(timeout=5)
    return received


def test_a_ticket_carries_the_job_id_and_nothing_else(redis_url: str, publisher: TicketPublisher) -> None:
    before = datetime.now(UTC).timestamp() - 0.1
    publisher.send("chatcmpl-1", "demo")
    ((body, headers),) = _consume(redis_url, "demo", 1)

    assert body == [["chatcmpl-1"], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]
    assert (headers["task"], headers["id"], headers["root_id"]) == (GENERATE, "chatcmpl-1", "chatcmpl-1")
    sent_at = headers["sent_at"]
    assert isinstance(sent_at, float)
    assert before <= sent_at <= datetime.now(UTC).timestamp() + 0.1


def test_tickets_keep_their_order_and_their_models(redis_client: redis.Redis, publisher: TicketPublisher) -> None:
    url = f"unix://{redis_client.connection_pool.connection_kwargs['path']}"
    for number in range(1000):
        publisher.send(f"job{number}", ("demo", "Qwen/Qwen3-0.6B")[number % 2])
    wait_until(lambda: celery_queue.queue_length(redis_client, "demo") == 500)
    wait_until(lambda: celery_queue.queue_length(redis_client, "Qwen/Qwen3-0.6B") == 500)

    bodies = [body for body, _ in _consume(url, "demo", 500)]
    assert [body[0] for body in bodies] == [[f"job{number}"] for number in range(0, 1000, 2)]  # type: ignore[index]


def test_the_oldest_waiting_ticket_tells_its_age(redis_client: redis.Redis, publisher: TicketPublisher) -> None:
    assert celery_queue.oldest_age_s(redis_client, "demo") == 0.0
    started = time.monotonic()
    publisher.send("a", "demo")
    wait_until(lambda: celery_queue.queue_length(redis_client, "demo") == 1)
    oldest_s = wait_until(lambda: age if (age := celery_queue.oldest_age_s(redis_client, "demo")) > 0.05 else None)
    # The reply with Redis' clock was on its way for a moment, which counts as age.
    assert oldest_s <= time.monotonic() - started + 2.0
    publisher.send("b", "demo")
    wait_until(lambda: celery_queue.queue_length(redis_client, "demo") == 2)
    asked_at = time.monotonic()
    older_s = celery_queue.oldest_age_s(redis_client, "demo")
    assert older_s >= oldest_s

    redis_client.rpop(celery_queue.queue_of("demo"))
    younger_s = celery_queue.oldest_age_s(redis_client, "demo")
    assert younger_s - (time.monotonic() - asked_at) < older_s


def test_a_clock_that_is_wrong_makes_no_ticket_old(
    redis_client: redis.Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time
    for wrong_by_s in (-3600.0, 3600.0):
        monkeypatch.setattr(time, "time", lambda wrong_by_s=wrong_by_s: now() + wrong_by_s)
        with_wrong_clock = TicketPublisher(redis_url)
        with_wrong_clock.start()
        with_wrong_clock.send("a", "demo")
        with_wrong_clock.stop()

        assert 0.0 <= celery_queue.oldest_age_s(redis_client, "demo") < 30.0
        redis_client.flushall()


def test_names_of_models_make_names_of_queues_that_celery_keeps_whole() -> None:
    assert celery_queue.queue_of("demo") == "tokenpost.generate.demo"
    names = [celery_queue.queue_of(model) for model in ("a,b", "a b", "a%2Cb", "ü", "org/name:tag", "\x06\x16")]
    assert len(set(names)) == len(names)
    assert not any("," in name or "\x06" in name for name in names)


def test_each_priority_queue_of_a_model_is_a_redis_list_of_its_own(redis_client: redis.Redis, redis_url: str) -> None:
    publisher = TicketPublisher(redis_url)
    publisher.start()
    publisher.send("soon", "demo")
    publisher.send("later", "demo", PriorityQueue.BACK)
    publisher.send("now", "demo", PriorityQueue.PRIORITY)
    publisher.stop()

    assert celery_queue.queue_length(redis_client, "demo") == 3
    lines = [
        redis_client.lrange(celery_queue.queue_of("demo", priority_queue), 0, -1) for priority_queue in PriorityQueue
    ]
    names = (b"now", b"soon", b"later")
    assert [(len(line), name in line[0]) for line, name in zip(lines, names, strict=True)] == [(1, True)] * 3
    assert celery_queue.oldest_age_s(redis_client, "demo", PriorityQueue.BACK) > 0
    assert celery_queue.oldest_age_s(redis_client, "other", PriorityQueue.BACK) == 0


@pytest.mark.parametrize(
    ("redis_url", "expected"),
    [
        ("redis://host:1/2", "redis://host:1/2"),
        ("unix:///a/b.sock", "redis+socket:///a/b.sock?virtual_host=0"),
        ("unix:///a/b.sock?db=3", "redis+socket:///a/b.sock?virtual_host=3"),
    ],
)
def test_kombu_gets_the_address_in_its_own_form(redis_url: str, expected: str) -> None:
    assert celery_queue.broker_url(redis_url) == expected


def test_stop_sends_what_waits(redis_client: redis.Redis, redis_url: str) -> None:
    publisher = TicketPublisher(redis_url)
    publisher.start()
    for number in range(2000):
        publisher.send(f"job{number}", "demo")
    publisher.stop()

    assert celery_queue.queue_length(redis_client, "demo") == 2000
    with pytest.raises(ShuttingDown):
        publisher.send("late", "demo")
    publisher.stop()


@contextmanager
def _publishing() -> Iterator[tuple[RedisServer, redis.Redis, TicketPublisher]]:
    """A broker of one's own, a client for it, and a publisher whose first ticket has arrived there."""
    with running_redis() as server, redis.Redis.from_url(server.url) as client:
        publisher = TicketPublisher(server.url)
        publisher.start()
        publisher.send("before", "demo")
        wait_until(lambda: celery_queue.queue_length(client, "demo") == 1)
        try:
            yield server, client, publisher
        finally:
            publisher.stop(timeout_s=1.0)


def test_a_dead_broker_costs_nobody_time_and_the_next_ticket_arrives() -> None:
    with _publishing() as (server, client, publisher):
        server.kill()

        started = time.monotonic()
        for number in range(1000):
            publisher.send(f"lost{number}", "demo")
        assert time.monotonic() - started < 0.5
        wait_until(publisher._waiting.empty)

        server.start()
        publisher.send("after", "demo")
        wait_until(lambda: celery_queue.queue_length(client, "demo") >= 1)


def test_a_restarted_broker_gets_the_very_next_ticket() -> None:
    with _publishing() as (server, client, publisher):
        server.kill()
        server.start()

        publisher.send("after", "demo")
        wait_until(lambda: celery_queue.queue_length(client, "demo") == 1)


def test_stop_does_not_wait_for_a_broker_that_hangs() -> None:
    with _publishing() as (server, _, publisher):
        server.send_signal(signal.SIGSTOP)
        publisher.send("after", "demo")
        started = time.monotonic()
        publisher.stop(timeout_s=0.2)
        assert time.monotonic() - started < 1.0


def test_celery_runs_what_the_publisher_sent(redis_url: str, publisher: TicketPublisher) -> None:
    app = celery_queue.create_celery(redis_url)
    ran: list[str] = []

    @app.task(name=GENERATE)
    def generate(job_id: str) -> None:
        ran.append(job_id)

    with start_worker(
        app, pool="solo", perform_ping_check=False, queues=[celery_queue.queue_of("demo")], loglevel="ERROR"
    ):
        for number in range(20):
            publisher.send(f"job{number}", "demo")
        wait_until(lambda: len(ran) == 20, timeout_s=15)

    assert sorted(ran) == sorted(f"job{number}" for number in range(20))


def test_celery_is_set_up_to_leave_recovery_to_us(redis_url: str) -> None:
    conf = celery_queue.create_celery(redis_url).conf
    assert conf.task_acks_late
    assert conf.worker_prefetch_multiplier == 1
    assert not conf.worker_enable_remote_control
    assert conf.accept_content == ["json"]
    assert conf.broker_transport_options["visibility_timeout"] == 24 * 3600
    assert conf.result_backend is None
