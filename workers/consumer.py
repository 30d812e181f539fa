"""Celery's consumer, less patient with a broker that went away: 2, 4, 6, ... 30 s between tries is its own way."""

import structlog
from celery.worker import state
from celery.worker.consumer import Consumer
from kombu import Connection

FIRST_PAUSE_S = 0.2
MORE_EACH_TIME_S = 0.2
LONGEST_PAUSE_S = 2.0

log = structlog.get_logger()


class PromptConsumer(Consumer):
    """Is back within two seconds of the broker."""

    def ensure_connected(self, conn: Connection) -> Connection:
        """The connection, once the broker answers; ends early when the worker is to stop."""
        connected: Connection = conn.ensure_connection(
            _on_refusal,
            interval_start=FIRST_PAUSE_S,  # type: ignore[arg-type]  # the stub wants whole seconds; kombu does not
            interval_step=MORE_EACH_TIME_S,  # type: ignore[arg-type]
            interval_max=LONGEST_PAUSE_S,  # type: ignore[arg-type]
            callback=state.maybe_shutdown,
        )
        self.first_connection_attempt = False
        return connected


def _on_refusal(error: Exception, pause_s: float) -> None:
    log.warning("broker_away", error=str(error), retry_in_s=round(pause_s, 1))
