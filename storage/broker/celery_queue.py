"""The task queues: Celery on Redis, one for each model and priority queue, and the thread that sends tickets to them.

A ticket carries a job id and nothing else. A lost one is found by the sweeper, a doubled one is refused by the claim.
"""

import queue
import threading
import time
from functools import lru_cache
from itertools import groupby
from urllib.parse import quote

import msgspec
import structlog
from celery import Celery
from redis import Redis
from redis.exceptions import RedisError

from storage.broker.redis_client import KEEPALIVE, connect
from storage.broker.ticket_message import encode_ticket, sent_at_of
from storage.contract import PriorityQueue
from storage.errors import ShuttingDown

MAINTENANCE_QUEUE = "tokenpost.maintenance"
_QUEUE_PREFIX = {
    PriorityQueue.PRIORITY: "tokenpost.priority.",
    PriorityQueue.FRONT: "tokenpost.generate.",
    PriorityQueue.BACK: "tokenpost.background.",
}
_BATCH_SIZE = 256
_SEND_ERRORS = (RedisError, OSError)
# Recovery is our own lease and sweeper; Celery's redelivery only has to stay out of the way.
_TRANSPORT_OPTIONS = {
    "visibility_timeout": 24 * 3600,
    "socket_keepalive": True,
    "socket_keepalive_options": KEEPALIVE,
    "socket_timeout": 5,
    "socket_connect_timeout": 2,
}

log = structlog.get_logger()


@lru_cache(maxsize=1024)
def queue_of(model: str, priority_queue: PriorityQueue = PriorityQueue.FRONT) -> str:
    """The name of the queue that holds a model's tickets; Celery splits names at commas, so those are escaped."""
    return _QUEUE_PREFIX[priority_queue] + quote(model, safe="/:@+")


def broker_url(redis_url: str) -> str:
    """A redis-py URL in kombu's format: a socket is `redis+socket:///path?virtual_host=0`."""
    if not redis_url.startswith("unix://"):
        return redis_url
    path, _, query = redis_url.removeprefix("unix://").partition("?")
    options = dict(part.partition("=")[::2] for part in query.split("&") if part)
    return f"redis+socket://{path}?virtual_host={options.get('db', '0')}"


def create_celery(redis_url: str) -> Celery:
    """The Celery app of every process that sends or takes tickets."""
    app = Celery("tokenpost", broker=broker_url(redis_url), set_as_current=False)
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        task_default_queue=MAINTENANCE_QUEUE,
        task_create_missing_queues=True,
        task_ignore_result=True,
        task_acks_late=True,
        task_acks_on_failure_or_timeout=True,
        worker_prefetch_multiplier=1,
        # With remote control on, Celery 5.7.0 dies at a Redis restart while tickets are unacknowledged.
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        enable_utc=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        # A Redis without memory refuses what taking a ticket writes; it is waited for like one that is away.
        broker_channel_error_retry=True,
        broker_transport_options=dict(_TRANSPORT_OPTIONS),
    )
    return app


class TicketPublisher:
    """A thread that sends tickets in batches. What it cannot send it logs and leaves to the sweeper."""

    def __init__(self, redis_url: str) -> None:
        self._redis_url = redis_url
        self._waiting: queue.SimpleQueue[_Ticket | None] = queue.SimpleQueue()
        self._is_open = False
        self._redis: Redis | None = None
        # How far Redis' clock, by which tickets are stamped, is ahead of ours.
        self._ahead_s = 0.0
        self._thread = threading.Thread(target=self._run, name="tickets", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._is_open = True
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Send what waits, but wait no longer than the timeout; the sweeper finds the rest."""
        if not self._is_open:
            return
        self._is_open = False
        self._waiting.put(None)
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            log.warning("tickets_unsent_at_stop", num_tickets=self._waiting.qsize())

    def send(self, job_id: str, model: str, priority_queue: PriorityQueue = PriorityQueue.FRONT) -> None:
        """Hand over a ticket and return at once; call it after the job's row is committed."""
        if not self._is_open:
            raise ShuttingDown("the ticket publisher is stopped")
        self._waiting.put(_Ticket(job_id, queue_of(model, priority_queue), time.time()))

    def _run(self) -> None:
        is_running = True
        while is_running:
            tickets = self._take()
            is_running = tickets[-1] is not None
            try:
                self._send([ticket for ticket in tickets if ticket is not None])
            except Exception:  # exception boundary of the thread: the sweeper sends what was not sent
                log.exception("ticket_publisher_failed", num_tickets=len(tickets))
                self._disconnect()
        self._disconnect()

    def _take(self) -> "list[_Ticket | None]":
        tickets = [self._waiting.get()]
        while len(tickets) < _BATCH_SIZE and tickets[-1] is not None:
            try:
                tickets.append(self._waiting.get_nowait())
            except queue.Empty:
                break
        return tickets

    def _send(self, tickets: "list[_Ticket]") -> None:
        # Once more on a fresh connection: the first sending after a restart of Redis finds the old one broken.
        for is_last in (False, True):
            try:
                return self._publish(tickets)
            except _SEND_ERRORS as error:
                self._disconnect()
                if is_last:
                    log.warning("tickets_not_sent", num_tickets=len(tickets), error=str(error))
        return None

    def _publish(self, tickets: "list[_Ticket]") -> None:
        if self._redis is None:
            self._redis = connect(self._redis_url)
            self._set_clock(self._redis.time())
        pipeline = self._redis.pipeline(transaction=False)
        for name, group in groupby(tickets, key=lambda ticket: ticket.queue):
            pipeline.lpush(name, *(encode_ticket(one.job_id, name, one.sent_at + self._ahead_s) for one in group))
        pipeline.time()
        self._set_clock(pipeline.execute()[-1])

    def _set_clock(self, redis_now: tuple[int, int]) -> None:
        self._ahead_s = _seconds(redis_now) - time.time()

    def _disconnect(self) -> None:
        client, self._redis = self._redis, None
        if client is not None:
            client.close()


class _Ticket(msgspec.Struct, frozen=True):
    job_id: str
    queue: str
    sent_at: float


def oldest_age_s(redis: Redis, model: str, priority_queue: PriorityQueue = PriorityQueue.FRONT) -> float:
    """How long the ticket that has waited longest in the model's queue has done so; 0 when none waits."""
    pipeline = redis.pipeline(transaction=False)
    pipeline.lindex(queue_of(model, priority_queue), -1)
    pipeline.time()
    raw, now = pipeline.execute()
    return 0.0 if raw is None else max(0.0, _seconds(now) - sent_at_of(raw))


def _seconds(moment: tuple[int, int]) -> float:
    """A reply to TIME: seconds and microseconds."""
    return moment[0] + moment[1] / 1e6


def queue_length(redis: Redis, model: str) -> int:
    """How many tickets wait for the model, in all its priority queues."""
    return sum(int(redis.llen(queue_of(model, priority_queue))) for priority_queue in PriorityQueue)
