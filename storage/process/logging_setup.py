"""How every process writes its own log: structlog for our events, and the same lines for the libraries' logging."""

import logging
import sys
from typing import Literal

import structlog
from structlog.typing import Processor

from storage.settings import PlatformSettings


class LogSettings(PlatformSettings):
    """How a process writes its log: one JSON object a line, or lines for people.

    log_format: `json` or `console`
    log_level: events below it are left out; libraries never tell less than warnings
    """

    log_format: Literal["json", "console"] = "console"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"


def configure(settings: LogSettings) -> None:
    """Set up logging to stderr for this process, once, at its entry point."""
    shared: list[Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # The renderer's own way with tracebacks shows local variables, and so prompts.
    renderer: Processor = structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
    )
    if settings.log_format == "json":
        shared.append(structlog.processors.format_exc_info)
        renderer = structlog.processors.JSONRenderer()
    level = logging.getLevelNamesMapping()[settings.log_level]
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    formatter = structlog.stdlib.ProcessorFormatter
    handler.setFormatter(formatter(foreign_pre_chain=shared, processors=[formatter.remove_processors_meta, renderer]))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(max(level, logging.WARNING))
    # It logs every malformed form, which the caller reads in the answer: whoever sends many would fill the log.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
