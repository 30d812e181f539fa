"""The process's own log, with Celery's manners: it writes what all rooms write, and leaves out what says nothing."""

import logging
import warnings

from celery import signals
from celery.apps import worker
from celery.exceptions import CPendingDeprecationWarning, SecurityWarning

from storage.process import logging_setup
from storage.process.logging_setup import LogSettings


def configure(settings: LogSettings) -> None:
    """Set up logging for this process, once, at its door; Celery then leaves it alone."""
    logging_setup.configure(settings)
    signals.setup_logging.connect(_leave_alone, weak=False)
    # What it says at a signal goes past the log, to standard output; what becomes of the jobs is logged by the pool.
    worker.safe_say = _say_nothing  # type: ignore[attr-defined]  # the stub lacks it
    # It is about pickled tasks under root; only JSON is accepted here.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    # Celery itself turns this one on again: what a later release will do at a reconnect unless told otherwise.
    logging.getLogger("py.warnings").addFilter(_says_something)


def _leave_alone(**_: object) -> None:
    """Celery configures logging unless somebody listens to this signal."""


def _say_nothing(*_: object) -> None:
    """As `celery.apps.worker.safe_say`."""


def _says_something(record: logging.LogRecord) -> bool:
    return CPendingDeprecationWarning.__name__ not in record.getMessage()
