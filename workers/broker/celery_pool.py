"""The Celery pool that feeds the engine: it passes a ticket on at once and acknowledges it when its job has ended.

Celery makes the pool itself, so what it needs lies in the app's configuration under PROCESS.
"""

import os
import time
from collections.abc import Callable
from typing import Any, Protocol

import structlog
from billiard.einfo import ExceptionInfo
from celery import signals
from celery.concurrency.base import BasePool
from celery.exceptions import Reject, WorkerShutdown
from celery.platforms import EX_FAILURE
from celery.worker import state
from kombu.asynchronous import Hub

from storage.errors import PlatformError, reason_of
from workers.broker.event_loop import EventLoopInbox
from workers.broker.ticket import Ticket

# The app's configuration key of a ProcessFactory.
PROCESS = "tokenpost_process"
# And of the seconds that running jobs get after SIGTERM.
DRAIN_GRACE_S = "tokenpost_drain_grace_s"
# How long the jobs that did not finish in time may take to leave the engine and reach their rows.
LEAVE_S = 5.0
# While draining, how often a second signal is looked for.
POLL_S = 0.2

Call = Callable[[], None]
log = structlog.get_logger()


class Process(Protocol):
    """What the pool feeds; see `workers.generation.process.GenerationProcess`."""

    @property
    def num_live(self) -> int: ...
    def start(self, check: Call) -> None: ...
    def accept(self, job_id: str, ticket: Ticket) -> None: ...
    def drain(self) -> None: ...
    def give_back(self) -> None: ...
    def stop(self) -> None: ...


ProcessFactory = Callable[[Callable[[Call], None], Call], Process]


class EnginePool(BasePool):
    """Celery's view of a generation worker."""

    signal_safe = False
    body_can_be_buffer = True
    task_join_will_block = False

    def __init__(self, *args: Any, **options: Any) -> None:  # Any: Celery's own signature
        super().__init__(*args, **options)
        self._event_loop: Hub | None = None
        self._inbox = EventLoopInbox()
        self._num_signals = 0
        self._is_stopping = False
        make: ProcessFactory = self.app.conf[PROCESS]
        self._process = make(self._inbox.put, self._end_worker)

    @property
    def num_live(self) -> int:
        """Jobs whose tickets wait for an answer."""
        return self._process.num_live

    # Called by Celery, on the main thread.

    def on_start(self) -> None:
        """Load the model; a worker that cannot ends with a failure."""
        signals.worker_shutting_down.connect(self._on_signal, weak=False)
        try:
            self._process.start(state.maybe_shutdown)
        except SystemExit:
            self._process.stop()
            raise
        except Exception as error:
            is_expected = isinstance(error, PlatformError)
            log.error("worker_cannot_start", reason=reason_of(error), exc_info=None if is_expected else error)
            self._process.stop()
            raise WorkerShutdown(EX_FAILURE) from error

    def register_with_event_loop(self, loop: Hub) -> None:
        """Attach the inbox to Celery's event loop; Celery calls this at every (re)connect, before it consumes."""
        self._event_loop = loop
        self._inbox.attach(loop)

    def on_apply(self, *args: Any, **options: Any) -> None:  # Any: Celery's own signature
        """Hand on a ticket: args are (target, (task, id, request, ...), kwargs), see celery.worker.request."""
        request = args[1][2]
        options["accept_callback"](os.getpid(), time.monotonic())
        self._process.accept(request["args"][0], _CeleryTicket(options["callback"], options["error_callback"]))

    def on_stop(self) -> None:
        """Drain: let jobs finish for the grace period, then give the rest back."""
        if self._is_stopping:
            self._num_signals += 1
            return
        self._is_stopping = True
        self._process.drain()
        log.info("worker_draining", num_jobs=self._process.num_live)
        self._pump(self.app.conf[DRAIN_GRACE_S], until=lambda: self._num_signals > 1)
        if self._process.num_live:
            log.info("jobs_given_back", num_jobs=self._process.num_live)
            self._process.give_back()
            self._pump(LEAVE_S)
        self._process.stop()
        log.info("worker_stopped")

    def on_terminate(self) -> None:
        """A cold shutdown: give everything back now."""
        self._num_signals += 2
        self.on_stop()

    def terminate_job(self, pid: Any, signal: Any | None = None) -> None:
        """Nothing: jobs are stopped through their rows, not by Celery."""

    # Parts.

    def _end_worker(self) -> None:
        """What a signal handler of Celery does; from any thread."""
        state.should_stop = EX_FAILURE  # type: ignore[assignment]  # the stub knows only its first value
        self._inbox.put(_nothing)

    def _on_signal(self, **_: object) -> None:
        self._num_signals += 1

    def _pump(self, timeout_s: float, until: Callable[[], bool] = lambda: False) -> None:
        """Run the event loop, and so answer tickets, until no job is live or the time is over."""
        event_loop = self._event_loop
        if event_loop is None:
            return
        # A connection that broke before the signal came removed the inbox from the event loop.
        self._inbox.attach(event_loop)
        deadline = time.monotonic() + timeout_s
        look_up = event_loop.call_repeatedly(POLL_S, _nothing)
        while self._process.num_live and not until() and time.monotonic() < deadline:
            try:
                event_loop.run_once()
            except Exception:  # exception boundary of a loop that is not ours: a broken broker must not end the drain
                log.warning("event_loop_error_while_draining", exc_info=True)
        look_up.cancel()


class _CeleryTicket:
    """A Celery request, as far as it can be answered."""

    __slots__ = ("_on_failure", "_on_success")

    def __init__(self, on_success: Callable[..., None], on_failure: Callable[..., None]) -> None:
        self._on_success = on_success
        self._on_failure = on_failure

    def acknowledge(self) -> None:
        """Celery wants (failed, value, runtime); it acknowledges and stores nothing."""
        self._on_success((False, None, 0.0))

    def give_back(self) -> None:
        """Celery wants the traceback of a raised Reject; it puts the message back at the queue's end."""
        try:
            raise Reject(requeue=True)
        except Reject:
            self._on_failure(ExceptionInfo())


def _nothing() -> None:
    """Wakes the event loop."""
