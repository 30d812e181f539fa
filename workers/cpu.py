"""The CPU worker's entry point: `python -m workers.cpu` runs the sweeper, the erasure of files and the webhook sender.

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
from storage.errors import SettingInvalid
from storage.files.content_store import open_content
from storage.process import logging_setup
from storage.process.logging_setup import LogSettings
from storage.settings import StorageSettings
from workers.maintenance.file_erasure import FileErasure, log_erasure_broken
from workers.maintenance.sweeper import Sweeper, log_broken
from workers.periodic_thread import PeriodicThread
from workers.settings import SweeperSettings
from workers.webhooks.sender_thread import SenderThread

JOIN_S = 5.0
FILE_ERASURE_PERIOD_S = 2.0

log = structlog.get_logger()


class Housekeeping:
    """The sweeper, the erasure of files, the webhook sender and their connections, started and stopped together."""

    def __init__(self, settings: SweeperSettings, storage: StorageSettings) -> None:
        self._database = Database(storage.database_url)
        self._writer = Writer(self._database)
        self._tickets = TicketPublisher(storage.redis_url)
        connection = redis_client.connect(storage.redis_url)
        sweeper = Sweeper(settings, storage, self._database, self._writer, connection, self._tickets)
        self._leave_duty = sweeper.leave
        self._sweeper = PeriodicThread(
            "sweeper", sweeper.sweep, period_s=settings.sweep_interval_s, on_error=log_broken
        )
        self._file_erasure = PeriodicThread(
            "file-erasure",
            FileErasure(self._database, open_content(storage.files_url, self._database)).erase_files,
            period_s=FILE_ERASURE_PERIOD_S,
            on_error=log_erasure_broken,
        )
        self._sender = SenderThread(storage, self._database, self._writer)

    def start(self) -> None:
        """Start sweeping and sending."""
        self._writer.start()
        self._tickets.start()
        self._sweeper.start()
        self._file_erasure.start()
        self._sender.start()

    def stop(self) -> None:
        """Stop after the current pass."""
        self._sender.stop(JOIN_S)
        self._file_erasure.stop(JOIN_S)
        self._sweeper.stop(JOIN_S)
        self._leave_duty()
        self._tickets.stop()
        self._writer.stop()
        self._database.dispose()


def main() -> None:
    """Run until SIGTERM or SIGINT; a second signal ends the process at once."""
    try:
        logging_setup.configure(LogSettings.read())
        housekeeping = Housekeeping(SweeperSettings.read(), StorageSettings.read())
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
