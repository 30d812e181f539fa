"""The CPU worker's entry point: `celery -A workers.cpu worker -P threads`. It loads no model."""

from celery import Celery, bootsteps
from celery.worker import WorkController

from storage.broker import celery_queue, redis_client
from storage.broker.celery_queue import TicketPublisher
from storage.database.connections import Database
from storage.database.group_commit import Writer
from storage.errors import SettingInvalid
from storage.process.logging_setup import LogSettings
from storage.settings import StorageSettings
from workers.broker import celery_logging
from workers.maintenance.sweeper import Sweeper, SweeperThread
from workers.settings import SweeperSettings
from workers.webhooks.sender_thread import SenderThread

# The app's configuration key of a Housekeeping.
HOUSEKEEPING = "tokenpost_housekeeping"
JOIN_S = 5.0


class Housekeeping:
    """The sweeper, the webhook sender and their connections, started and stopped together."""

    def __init__(self, settings: SweeperSettings, storage: StorageSettings) -> None:
        self._database = Database(storage.database_url)
        self._writer = Writer(self._database)
        self._tickets = TicketPublisher(storage.redis_url)
        connection = redis_client.connect(storage.redis_url)
        sweeper = Sweeper(settings, storage, self._database, self._writer, connection, self._tickets)
        self._leave_duty = sweeper.leave
        self._sweeper = SweeperThread(sweeper.sweep, settings.sweep_interval_s)
        self._sender = SenderThread(storage, self._database, self._writer)

    def start(self) -> None:
        """Start sweeping and sending."""
        self._writer.start()
        self._tickets.start()
        self._sweeper.start()
        self._sender.start()

    def stop(self) -> None:
        """Stop after the current pass."""
        self._sender.stop(JOIN_S)
        self._sweeper.stop(JOIN_S)
        self._leave_duty()
        self._tickets.stop()
        self._writer.stop()
        self._database.dispose()


class HousekeepingStep(bootsteps.StartStopStep):
    """Ties the housekeeping to the life of a Celery worker."""

    def start(self, parent: WorkController) -> None:
        """Start sweeping and sending."""
        parent.app.conf[HOUSEKEEPING].start()

    def stop(self, parent: WorkController) -> None:
        """Stop after the current pass."""
        parent.app.conf[HOUSEKEEPING].stop()


def create_cpu_app(settings: SweeperSettings, storage: StorageSettings) -> Celery:
    """The app for `celery worker`; it starts nothing by itself."""
    app = celery_queue.create_celery(storage.redis_url)
    app.conf.update(
        {
            "worker_pool": "threads",
            "worker_consumer": "workers.broker.consumer:PromptConsumer",
            HOUSEKEEPING: Housekeeping(settings, storage),
        }
    )
    app.steps["worker"].add(HousekeepingStep)
    return app


try:
    celery_logging.configure(LogSettings.read())
    app = create_cpu_app(SweeperSettings.read(), StorageSettings.read())
except SettingInvalid as error:
    raise SystemExit(error.message) from error
