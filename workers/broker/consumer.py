"""Celery's consumer with a shorter reconnect backoff: 0.2 to 2 s instead of Celery's 2, 4, 6, ... 30 s."""

import contextlib

import structlog
from celery.utils.threads import bound_open_broker_sockets  # type: ignore[attr-defined]  # newer than its stub
from celery.worker import state
from celery.worker.consumer import Consumer
from kombu import Connection

FIRST_PAUSE_S = 0.2
MORE_EACH_TIME_S = 0.2
LONGEST_PAUSE_S = 2.0
# How long a broker that hangs may take to answer while its connection is closed.
CLOSE_WITHIN_S = 5.0

log = structlog.get_logger()


class PromptConsumer(Consumer):
    """Reconnects within two seconds of the broker's return."""

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

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Close the broken connection."""
        if self.connection is not None:
            bound_open_broker_sockets(self.connection, CLOSE_WITHIN_S)
            _close_channels(self.connection)
        super().on_connection_error_after_connected(exc)


def _close_channels(connection: Connection) -> None:
    """Close every channel, also those whose own socket does not know yet that the broker is gone.

    The first close of such a channel only notices and gives up. Celery then closes it a second time, when the channel
    has no connection any more, and the AttributeError ends the worker (Celery and kombu 5.7.0).
    """
    for channel in list(connection.transport.channels):  # type: ignore[attr-defined]  # a virtual transport has them
        for _ in range(2):
            # A Redis that is full cannot take the unacknowledged tickets back; the sweeper sends new ones.
            with contextlib.suppress(*connection.connection_errors, *connection.channel_errors):
                channel.close()


def _on_refusal(error: Exception, pause_s: float) -> None:
    log.warning("broker_away", error=str(error), retry_in_s=round(pause_s, 1))
