"""The control thread: hears which jobs were cancelled. What it misses, the beat finds in the rows."""

import threading
from collections.abc import Callable

import structlog
from redis import Redis
from redis.client import PubSub
from redis.exceptions import RedisError

from storage.log import control_channel, decode_cancel

# How long one read may block; only a stop waits for it.
READ_S = 1.0
RETRY_S = 0.5

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
        """Hear no more; the thread ends within a second, and nobody needs to wait for it."""
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._listen()
            except RedisError as error:
                if self._stopping.is_set():
                    return
                log.warning("control_lost", error=str(error), retry_in_s=RETRY_S)
                self._stopping.wait(RETRY_S)

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
