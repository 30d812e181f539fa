"""One generation worker process: its threads, how they are started and how they end.

event loop Celery's (main thread): tickets in, acknowledgements out
engine     loads the model and steps
grammars   compiles the grammars of constrained jobs
publisher  writes event logs
writer     commits rows
control    receives cancellations
beat       renews the lease, compares with the rows, tries again
"""

import faulthandler
import os
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from os import EX_SOFTWARE
from typing import TypeVar

import structlog
from sqlalchemy import Connection

from storage.broker import redis_client
from storage.broker.celery_queue import TicketPublisher
from storage.broker.event_log import LogWriter, delete_logs, list_tails, read_log
from storage.contract import JobHeader
from storage.database.connections import Database
from storage.database.group_commit import Writer
from storage.errors import JobNotFound, ShuttingDown, StorageUnavailable, reason_of
from storage.jobs import jobs, poison_jobs, records
from storage.jobs.recovery import Ticket as LostTicket
from storage.settings import StorageSettings
from workers.broker.ticket import Ticket
from workers.generation.beat import Beat, strays
from workers.generation.control import ControlListener
from workers.generation.engine_thread import EngineThread, Loaded
from workers.generation.pipeline.job_generation import StopReason
from workers.generation.pipeline.pipeline import Pipeline
from workers.generation.pipeline.ports import Ports
from workers.generation.registry import Registry
from workers.generation.watchdog import Watchdog
from workers.publishing.publisher import Publisher, Watch
from workers.settings import WorkerSettings

# How long the rows of jobs given back may take to be written when the worker ends.
PARTING_S = 3.0
JOIN_S = 2.0
# How often a start that waits for its model checks whether it is to end.
POLL_S = 0.1

T = TypeVar("T")
Call = Callable[[], None]
log = structlog.get_logger()


class GenerationProcess:
    """Everything of a generation worker but Celery."""

    def __init__(
        self,
        settings: WorkerSettings,
        storage: StorageSettings,
        load: Callable[[], Loaded],
        on_event_loop: Callable[[Call], None],
        on_fatal: Call,
        end_hard: Callable[[int], object] = os._exit,
    ) -> None:
        """Start nothing yet.

        load:     makes the engine, on the engine's thread
        on_event_loop:   runs a call on Celery's own thread, soon
        on_fatal: called when the process cannot go on
        end_hard: ends the process at once, with a code
        """
        self._call_on_fatal = on_fatal
        self._end_hard = end_hard
        self._watchdog_s = settings.watchdog_s
        self._watchdog = Watchdog(settings.watchdog_s)
        self._max_lost_attempts = storage.max_lost_attempts
        self._is_broken = False
        self._orphans: set[tuple[str, int]] = set()
        self._redis_url = storage.redis_url
        self._redis = redis_client.connect(storage.redis_url)
        self._database = Database(storage.database_url)
        self._writer = Writer(self._database)
        self._engine = EngineThread(load, self._on_fatal)
        self._on_grammar_thread = ThreadPoolExecutor(1, "grammars").submit
        self._publisher = Publisher(
            partial(_open_log, settings, storage), partial(read_log, self._redis), self._on_fatal
        )
        self._beat = Beat(storage.lease_s / 3, self._on_beat, self._on_fatal)
        self._control = ControlListener(
            redis_client.connect(storage.redis_url, socket_timeout_s=None), settings.worker_id, self._on_cancel
        )
        self._registry = Registry(
            self._writer, worker_id=settings.worker_id, model=settings.name, slots=settings.max_running
        )
        self._pipeline = Pipeline(
            settings.worker_id,
            self._ports(on_event_loop),
            shares_prefixes=settings.prefix_cache,
            isolation_threshold=poison_jobs.isolation_threshold(storage.max_lost_attempts),
        )

    def _ports(self, on_event_loop: Callable[[Call], None]) -> Ports:
        read = partial(_read, ThreadPoolExecutor(1, "job-reader"), self._database, self._beat.later)
        return Ports(
            writer=self._writer,
            engine=self._engine,
            publisher=self._publisher,
            on_event_loop=on_event_loop,
            later=self._beat.later,
            tails=partial(list_tails, self._redis),
            drop_log=lambda job_id: delete_logs(self._redis, [job_id]),
            on_grammar_thread=self._on_grammar_thread,
            read_header=partial(read, _find_header),
            read_spec=partial(read, jobs.get_spec),
        )

    # Start.

    def start(self, check: Call) -> None:
        """Load the model and become ready; raises what the load raised, after storing it, or StorageUnavailable.

        check: called now and then meanwhile; what it raises ends the wait
        """
        self._writer.start()
        self._send(self._registry.announce(self._max_lost_attempts))
        self._beat.start()
        self._publisher.start(Watch(on_fenced=self._pipeline.on_fenced, missing=self._pipeline.missing))
        self._control.start()
        self._engine.start(on_step=self._pipeline.on_step)
        try:
            loaded = self._wait_for_model(check)
        except Exception as error:
            self._try(partial(self._registry.failed, reason_of(error)))
            raise
        self._registry.ready(loaded.manifest, loaded.engine.stats(), device=loaded.device, dtype=loaded.dtype)
        if loaded.text is not None:
            self._on_grammar_thread(loaded.text.grammars.read_tokenizer)
        log.info("worker_ready", model=loaded.manifest.model, device=loaded.device, dtype=loaded.dtype)

    def _send(self, tickets: list[LostTicket]) -> None:
        """Send tickets of jobs that were queued again; the sweeper would find that they are missing only later."""
        if not tickets:
            return
        publisher = TicketPublisher(self._redis_url)
        publisher.start()
        for ticket in tickets:
            publisher.send(ticket.job_id, ticket.model, ticket.priority_queue)
        publisher.stop(PARTING_S)

    def _wait_for_model(self, check: Call) -> Loaded:
        while True:
            try:
                return self._engine.loaded.result(POLL_S)
            except TimeoutError:
                if self._engine.loaded.done():
                    raise
                check()

    # Run: `accept` on the event loop's thread, the rest on the threads named in their callers.

    def accept(self, job_id: str, ticket: Ticket) -> None:
        """Take a ticket; it is answered when its job has ended, on the event loop's thread."""
        self._pipeline.accept(job_id, ticket)

    def _on_cancel(self, job_id: str) -> None:
        self._pipeline.stop(job_id, StopReason.CANCELLED)

    def _on_beat(self) -> None:
        """Renew the lease, and compare what runs here with what the rows say."""
        if self._watchdog.is_stuck(self._engine.pulse):
            self._end_stuck()
        believed = self._pipeline.running()
        rows = self._registry.beat(len(believed), self._engine.watch.latest, self._pipeline.num_ended)
        for job_id in strays(believed, rows):
            self._pipeline.stop(job_id, StopReason.OWNERSHIP_LOST)
        # A claim whose reply got lost leaves a row of ours that does not run. Seen twice, it is not a claim in flight.
        unknown = {(row.job_id, row.attempt) for row in rows if not self._pipeline.knows(row.job_id)}
        self._registry.give_back([row for row in rows if (row.job_id, row.attempt) in unknown & self._orphans])
        self._orphans = unknown

    def _end_stuck(self) -> None:
        """End a process whose engine hangs: nothing else would, and its beat would keep its jobs for ever."""
        log.error(
            "worker_stuck",
            why="the engine has work and computed nothing for so long; TOKENPOST_WATCHDOG_S is the limit",
            watchdog_s=self._watchdog_s,
            job_ids=list(self._pipeline.running()),
        )
        faulthandler.dump_traceback()
        # Its jobs are given back at once, as lost attempts; without a database they are when the lease is over.
        self._try(self._registry.dead)
        self._end_hard(EX_SOFTWARE)

    def _on_fatal(self, error: BaseException) -> None:
        log.error("worker_broken", exc_info=error)
        self._is_broken = True
        self._call_on_fatal()

    # End.

    @property
    def num_live(self) -> int:
        """Jobs whose tickets wait for an answer."""
        return 0 if self._is_broken else self._pipeline.num_live

    def drain(self) -> None:
        """Take no more jobs, and say so."""
        self._pipeline.drain()
        self._try(self._registry.draining)

    def give_back(self) -> None:
        """Stop every job after its current step and queue it again."""
        self._pipeline.stop_all(StopReason.GIVEN_BACK)

    def stop(self) -> None:
        """End the threads. Rows that are still this worker's go back to the queue without their logs' last word."""
        self._control.stop()
        self._beat.stop(JOIN_S)
        self._engine.stop(JOIN_S)
        self._publisher.stop(JOIN_S)
        for done in self._pipeline.abandon():
            self._try(partial(done.result, PARTING_S))
        self._try(self._registry.dead)
        self._writer.stop()
        self._database.dispose()

    @staticmethod
    def _try(call: Callable[[], object]) -> None:
        try:
            call()
        except (StorageUnavailable, ShuttingDown, TimeoutError) as error:
            # The lease runs out then, and the sweeper does the rest.
            log.warning("parting_word_not_stored", error=str(error))


def _read(
    thread: Executor,
    database: Database,
    later: Callable[[Call], None],
    query: Callable[[Connection, str], T],
    job_id: str,
    then: Callable[[T | None], None],
) -> None:
    """Call `then` with what the query finds of the job, on the thread; with None for an erased job."""

    def read() -> None:
        try:
            with database.connect() as connection:
                found = query(connection, job_id)
        except JobNotFound:
            then(None)
        except StorageUnavailable as error:
            log.warning("job_not_read", job_id=job_id, error=str(error))
            later(partial(_read, thread, database, later, query, job_id, then))
        else:
            then(found)

    thread.submit(read)


def _find_header(connection: Connection, job_id: str) -> JobHeader | None:
    job = jobs.find(connection, job_id)
    return None if job is None else records.header_of(job)


def _open_log(settings: WorkerSettings, storage: StorageSettings) -> LogWriter:
    return LogWriter(
        redis_client.connect_once(storage.redis_url),
        settings.worker_id,
        ttl_running_s=storage.log_ttl_running_s,
        ttl_ended_s=storage.log_ttl_ended_s,
    )
