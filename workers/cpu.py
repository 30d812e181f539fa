"""The CPU worker's entry point: `python -m workers.cpu` sweeps, runs batches, erases files, sends webhooks.

It loads no model.
"""

import signal
import threading
from types import FrameType

import structlog

from storage.broker import redis_client
from storage.broker.celery_queue import TicketPublisher
from storage.database.connections import Database
from storage.database.group_commit import Writer
from storage.errors import SettingInvalid, reason_of
from storage.files.content_store import open_content
from storage.process import logging_setup
from storage.process.logging_setup import LogSettings
from storage.settings import RequestSettings
from workers.batches.batch_runner import BatchRunner
from workers.batches.batch_services import BatchServices
from workers.maintenance.file_erasure import FileErasure, log_erasure_broken
from workers.maintenance.sweeper import Sweeper, log_broken
from workers.periodic_thread import PeriodicThread
from workers.settings import SweeperSettings
from workers.webhooks.sender_thread import SenderThread

JOIN_S = 5.0
FILE_ERASURE_PERIOD_S = 2.0
BATCH_INTERVAL_S = 0.25

log = structlog.get_logger()


class Housekeeping:
    """Sweeper, batches, erasure of files, webhook sender and their connections, started and stopped together."""

    def __init__(self, settings: SweeperSettings, storage: RequestSettings) -> None:
        self._database = Database(storage.database_url)
        self._writer = Writer(self._database)
        self._tickets = TicketPublisher(storage.redis_url)
        connection = redis_client.connect(storage.redis_url)
        sweeper = Sweeper(settings, storage, self._database, self._writer, connection, self._tickets)
        self._leave_duty = sweeper.leave
        self._sweeper = PeriodicThread(
            "sweeper", sweeper.sweep, period_s=settings.sweep_interval_s, on_error=log_broken
        )
        content = open_content(storage.files_url, self._database)
        self._file_erasure = PeriodicThread(
            "file-erasure",
            FileErasure(self._database, content).erase_files,
            period_s=FILE_ERASURE_PERIOD_S,
            on_error=log_erasure_broken,
        )
        services = BatchServices(
            settings=storage,
            database=self._database,
            writer=self._writer,
            content=content,
            redis=connection,
            tickets=self._tickets,
        )
        self._batch_runner = BatchRunner(services, lambda: sweeper.has_duty)
        self._batches = PeriodicThread(
            "batches", self._batch_runner.run_once, period_s=BATCH_INTERVAL_S, on_error=log_broken_batches
        )
        self._sender = SenderThread(storage, self._database, self._writer)

    def start(self) -> None:
        """Start all threads."""
        self._writer.start()
        self._tickets.start()
        self._sweeper.start()
        self._file_erasure.start()
        self._batches.start()
        self._sender.start()

    def stop(self) -> None:
        """Stop after the current pass."""
        self._sender.stop(JOIN_S)
        self._file_erasure.stop(JOIN_S)
        self._batch_runner.stop()
        self._batches.stop(JOIN_S)
        self._sweeper.stop(JOIN_S)
        self._leave_duty()
        self._batch_runner.close()
        self._tickets.stop()
        self._writer.stop()
        self._database.dispose()


def log_broken_batches(error: Exception) -> bool:
    """Log what a pass over the batches raised; True, since the next one may succeed."""
    log.error("batches_broken", error=reason_of(error))
    return True


def main() -> None:
    """Run until SIGTERM or SIGINT; a second signal ends the process at once."""
    try:
        logging_setup.configure(LogSettings.read())
        housekeeping = Housekeeping(SweeperSettings.read(), RequestSettings.read())
    except SettingInvalid as error:
        raise SystemExit(error.message) from error
    stopping = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        stopping.set()

    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, stop)
    housekeeping.start()
    log.info("cpu_worker_started")
    stopping.wait()
    housekeeping.stop()
    log.info("cpu_worker_stopped")


if __name__ == "__main__":
    main()
