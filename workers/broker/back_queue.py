"""A second AMQP consumer, for the back queue: a worker that is full of background jobs still takes other jobs.

Celery bounds a worker's unacknowledged tickets by channel. On one channel, a worker full of background jobs would take
no other job until one of them ends. Here the front queue has Celery's own channel to itself, and its whole bound.
"""

from types import MethodType

from celery import bootsteps
from celery.worker.consumer import Consumer
from celery.worker.consumer.tasks import Tasks
from kombu import Consumer as KombuConsumer
from kombu import Queue
from kombu.common import ignore_errors
from kombu.transport.virtual import Channel, QoS

# The app's configuration key of the back queue's name.
BACK_QUEUE = "tokenpost_back_queue"


class BackQueueConsumer(bootsteps.StartStopStep):
    """Consumes the back queue while the worker holds fewer jobs, of both queues, than its concurrency."""

    requires = (Tasks,)

    def __init__(self, c: Consumer, **options: object) -> None:
        super().__init__(c, **options)
        self._consumer: KombuConsumer | None = None

    def start(self, c: Consumer) -> None:
        """Consume; Celery calls this after every (re)connect."""
        assert c.connection is not None
        channel: Channel = c.connection.channel()  # type: ignore[assignment]  # Redis channels are virtual ones
        channel.basic_qos(0, c.pool.limit, False)
        _bound(channel.qos, c)
        self._consumer = c.app.amqp.TaskConsumer(
            channel, queues=[Queue(c.app.conf[BACK_QUEUE])], on_decode_error=c.on_decode_error
        )
        self._consumer.on_message = c.create_task_handler()
        self._consumer.consume()

    def stop(self, c: Consumer) -> None:
        """Take no more tickets; those that wait for their answer keep the channel."""
        if self._consumer is not None:
            ignore_errors(c, self._consumer.cancel)  # type: ignore[arg-type]  # as Celery's own steps do

    def shutdown(self, c: Consumer) -> None:
        """Close the channel."""
        if self._consumer is not None:
            self.stop(c)
            ignore_errors(c, self._consumer.close)  # type: ignore[arg-type]
            self._consumer = None


def _bound(qos: QoS, c: Consumer) -> None:
    """Let this channel's bound count the jobs of both queues, as Celery itself does for `worker_disable_prefetch`."""
    own = qos.can_consume

    def can_consume(_: QoS) -> bool:
        return bool(c.pool.num_live < c.pool.limit and own())

    qos.can_consume = MethodType(can_consume, qos)  # type: ignore[method-assign]  # kombu offers no other way
