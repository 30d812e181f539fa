"""Log set-up of a Celery process: our format, without Celery's handlers and without messages that say nothing."""

import logging
import warnings

from celery import signals
from celery.apps import worker
from celery.exceptions import CPendingDeprecationWarning, SecurityWarning

from storage.process import logging_setup
from storage.process.logging_setup import LogSettings


def configure(settings: LogSettings) -> None:
    """Set up logging for this process, once, at its entry point; Celery then configures nothing."""
    logging_setup.configure(settings)
    signals.setup_logging.connect(_leave_alone, weak=False)
    # Celery's message at a signal goes to standard output and not to the log. The pool logs what happens to the jobs.
    worker.safe_say = _say_nothing  # type: ignore[attr-defined]  # the stub lacks it
    # It is about pickled tasks under root; only JSON is accepted here.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    # Celery itself turns this warning on again; it is about what a later release will do at a reconnect.
    logging.getLogger("py.warnings").addFilter(_says_something)


def _leave_alone(**_: object) -> None:
    """Celery configures logging unless this signal has a receiver."""


def _say_nothing(*_: object) -> None:
    """As `celery.apps.worker.safe_say`."""


def _says_something(record: logging.LogRecord) -> bool:
    return CPendingDeprecationWarning.__name__ not in record.getMessage()
