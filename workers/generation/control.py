"""The control thread: receives cancellations by pub/sub. The heartbeat finds those that it misses in the rows."""

import threading
import time
from collections.abc import Callable

import structlog
from redis import Redis
from redis.client import PubSub
from redis.exceptions import RedisError

from storage.broker.event_log import control_channel, decode_cancel

# How long one read may block; only a stop waits for it.
READ_S = 1.0
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 2.0

log = structlog.get_logger()


class ControlListener:
    """Calls `on_cancel` with the job id of every control message; reconnects for ever."""

    def __init__(self, redis: Redis, worker_id: str, on_cancel: Callable[[str], None]) -> None:
        self._redis = redis
        self._channel = control_channel(worker_id)
        self._on_cancel = on_cancel
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def stop(self) -> None:
        """Stop listening; the thread ends within a second and need not be joined."""
        self._stopping.set()

    def _run(self) -> None:
        pause_s = FIRST_PAUSE_S
        while not self._stopping.is_set():
            started = time.monotonic()
            try:
                self._listen()
            except RedisError as error:
                if self._stopping.is_set():
                    return
                pause_s = FIRST_PAUSE_S if time.monotonic() - started > LONGEST_PAUSE_S else pause_s
                log.warning("control_lost", error=str(error), retry_in_s=pause_s)
                self._stopping.wait(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _pubsub(self) -> PubSub:
        pubsub: PubSub = self._redis.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]  # redis-py
        return pubsub

    def _listen(self) -> None:
        with self._pubsub() as subscription:
            subscription.subscribe(self._channel)
            while not self._stopping.is_set():
                message = subscription.get_message(timeout=READ_S)
                if message is not None:
                    self._on_cancel(decode_cancel(message["data"]))
