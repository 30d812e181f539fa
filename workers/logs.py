"""How worker processes write their own log: structlog for our events, and the same lines for Celery's."""

import logging
import sys

import structlog
from celery import signals
from structlog.typing import Processor

from workers.settings import LogSettings


def configure(settings: LogSettings) -> None:
    """Set up logging for this process, once, at its door; Celery then leaves it alone."""
    renderer: Processor = structlog.processors.JSONRenderer()
    if settings.log_format == "console":
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    shared: list[Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if settings.log_format == "json":
        shared.append(structlog.processors.format_exc_info)
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(settings.log_level)),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    _configure_foreign(settings, shared, renderer)
    signals.setup_logging.connect(_leave_alone, weak=False)


def _configure_foreign(settings: LogSettings, shared: list[Processor], renderer: Processor) -> None:
    """Celery, kombu and all who use the standard library's logging."""
    handler = logging.StreamHandler(sys.stderr)
    formatter = structlog.stdlib.ProcessorFormatter
    handler.setFormatter(formatter(foreign_pre_chain=shared, processors=[formatter.remove_processors_meta, renderer]))
    root = logging.getLogger()
    root.handlers = [handler]
    # Celery tells each ticket at INFO; our own events do so already.
    root.setLevel(max(logging.getLevelName(settings.log_level), logging.WARNING))


def _leave_alone(**_: object) -> None:
    """Celery configures logging unless somebody listens to this signal."""
