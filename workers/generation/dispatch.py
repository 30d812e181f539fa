"""Every job on this worker, and its walk: ticket, claim, engine, log, outcome, acknowledgement.

    hub        accept a ticket            -> writer
    writer     claim                      -> engine (a later attempt: publisher, to read its log, then engine)
    engine     enter; one step's outputs  -> publisher
    publisher  entries into logs          -> writer (outcome), when a job is finished
    writer     committed                  -> publisher (END)
    publisher  END is in the log          -> hub (acknowledge)

Nobody waits for anybody: each arrow is a queue, and a job is touched by one thread at a time. A first attempt
enters the engine while its claim is still on its way to the disk; what it yields is held until the claim is there.
"""

from collections.abc import Callable, Collection, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

import structlog
from sqlalchemy import Connection

from storage.broker.event_log import Row
from storage.contract import End, Failure, JobSpec, LogEntry, TokenEvent
from storage.errors import PlatformError
from storage.jobs import jobs, poison_jobs
from workers.engine.engine import Engine
from workers.engine.sequence import SequenceOutput
from workers.generation import job_outcome
from workers.generation.job_generation import Generation, Phase, StopReason
from workers.generation.job_outcome import Left
from workers.generation.logprob_bytes import Spelling
from workers.generation.poison_job_isolation import Quarantine, Verdict
from workers.generation.ports import Road, Ticket
from workers.publishing.log_entries import end_row, missing_rows, start_row, tokens_row
from workers.publishing.publisher import Round

log = structlog.get_logger()


@dataclass(slots=True, eq=False)
class _Live:
    generation: Generation
    tickets: list[Ticket] = field(default_factory=list)


class Dispatcher:
    """The table of live jobs and the steps of their walk, each named for the thread that takes it."""

    def __init__(
        self,
        worker_id: str,
        road: Road,
        *,
        shares_prefixes: bool = True,
        suspect_from: int = poison_jobs.isolation_threshold(3),
    ) -> None:
        """shares_prefixes: whether jobs of one owner share what the cache holds of their prompts
        suspect_from: lost attempts from which a job is watched alone
        """
        self._worker_id = worker_id
        self._shares_prefixes = shares_prefixes
        self._suspect_from = suspect_from
        self._road = road
        self._quarantine = Quarantine(self._begin, self._has_unproven)
        self._live: dict[str, _Live] = {}
        self._place_by_sequence: dict[str, tuple[Generation, int]] = {}
        self._is_draining = False
        self.num_ended = 0

    @property
    def num_live(self) -> int:
        """Jobs whose tickets are not answered yet."""
        return len(self._live)

    def running(self) -> dict[str, int]:
        """The attempt of every job that this worker believes to run, by job id."""
        generations = [live.generation for live in list(self._live.values())]
        return {one.job_id: one.attempt for one in generations if one.is_claimed and one.phase is Phase.RUNNING}

    def knows(self, job_id: str) -> bool:
        """Whether the job is on this worker, in whatever phase."""
        return job_id in self._live

    # On the hub's thread.

    def accept(self, job_id: str, ticket: Ticket) -> None:
        """Begin the walk of a job; a second ticket of a live job joins the first."""
        if self._is_draining:
            ticket.give_back()
            return
        live = self._live.get(job_id)
        if live is not None:
            live.tickets.append(ticket)
            return
        self._live[job_id] = _Live(Generation(job_id), [ticket])
        if self._quarantine.is_active:
            self._quarantine.hold(job_id)
        else:
            self._begin(job_id, False)

    def _begin(self, job_id: str, is_on_trial: bool) -> None:
        generation = self._live[job_id].generation
        claim = self._road.writer.submit(partial(self._claim, generation, is_on_trial))
        claim.add_done_callback(partial(self._on_claim, generation))

    def _has_unproven(self, waiting: Collection[str]) -> bool:
        return any(not live.generation.is_proven for job_id, live in self._live.items() if job_id not in waiting)

    def _isolate(self, generation: Generation) -> None:
        """A suspect waits for its trial."""
        if self._is_draining:
            self._answer(generation, Left.GIVEN_BACK)
        else:
            self._quarantine.add(generation.job_id)

    def _on_proof(self, generation: Generation) -> None:
        """A job has run well for a while."""
        if self._quarantine.is_on_trial(generation.job_id):
            self._acquit(generation)
        else:
            self._quarantine.advance()

    def drain(self) -> None:
        """Take no more jobs; those that wait in quarantine go back at once."""
        self._is_draining = True
        for job_id in self._quarantine.clear():
            self._answer(self._live[job_id].generation, Left.GIVEN_BACK)

    def _answer(self, generation: Generation, left: Left | None) -> None:
        live = self._live.pop(generation.job_id)
        self._quarantine.forget(generation.job_id)
        first, *joined = live.tickets
        if left is Left.GIVEN_BACK:
            for ticket in live.tickets:
                ticket.give_back()
            return
        first.acknowledge()
        for ticket in joined:
            # A ticket that came while a lost attempt still ran here may be the next attempt's.
            if left is Left.OWNERSHIP_LOST:
                self.accept(generation.job_id, ticket)
            else:
                ticket.acknowledge()

    # On any thread.

    def stop(self, job_id: str, reason: StopReason) -> None:
        """Take a job out of the engine before the next step; its row decides what it comes to."""
        live = self._live.get(job_id)
        if live is None:
            return
        generation = live.generation
        generation.stop = generation.stop or reason
        self._road.engine.put(partial(self._quit, generation))

    def stop_all(self, reason: StopReason) -> None:
        """Take every job out of the engine."""
        for job_id in list(self._live):
            self.stop(job_id, reason)

    def abandon(self) -> "list[Future[End | Left]]":
        """Give every claimed job's row back, past the queues; for a worker whose other threads are gone."""
        now = datetime.now(UTC)
        claimed = [live.generation for live in list(self._live.values()) if live.generation.attempt]
        return [self._road.writer.submit(partial(job_outcome.leave, generation=one, now=now)) for one in claimed]

    def _end_walk(self, generation: Generation, left: Left | None) -> None:
        self._road.on_hub(partial(self._answer, generation, left))

    # On the writer's thread.

    def _claim(
        self, generation: Generation, is_on_trial: bool, connection: Connection
    ) -> "jobs.Claim | Verdict | None":
        """Claim the job, inside the writer's transaction; run again, it finds the generation begun."""
        ours = (connection, generation.job_id, self._worker_id, datetime.now(UTC))
        claim = jobs.claim(*ours) if is_on_trial else jobs.claim(*ours, lost_below=self._suspect_from)
        if claim is None and not is_on_trial:
            is_suspect = poison_jobs.needs_isolation(connection, generation.job_id, self._suspect_from)
            return Verdict.SUSPECT if is_suspect else None
        if claim is not None and claim.attempt == 1 and claim.spec is not None and generation.phase is Phase.CLAIMING:
            generation.begin(claim.attempt, claim.spec, self._salt(generation, claim))
            self._run(generation)
        return claim

    def _salt(self, generation: Generation, claim: jobs.Claim) -> str:
        """Who may share cached prefixes: nobody may learn from a hit what another owner asked."""
        return f"{claim.model}\0{claim.owner if self._shares_prefixes else generation.job_id}"

    def _on_claim(self, generation: Generation, done: "Future[jobs.Claim | Verdict | None]") -> None:
        error = done.exception()
        claim = None if error is not None else done.result()
        if claim is Verdict.SUSPECT:
            self._road.on_hub(partial(self._isolate, generation))
            return
        is_false_start = generation.phase is Phase.RUNNING and (claim is None or claim.attempt != generation.attempt)
        if is_false_start:
            generation.stop = StopReason.UNCLAIMED
            self._road.engine.put(partial(self._quit, generation))
        if error is not None or (is_false_start and claim is not None):
            log.warning("claim_failed", job_id=generation.job_id, error=str(error))
            self._road.later(partial(self._end_walk, generation, Left.GIVEN_BACK))
        elif claim is None:
            self._end_walk(generation, None)
        elif generation.phase is Phase.RUNNING:
            self._road.publisher.put(partial(self._on_committed, generation))
        elif claim.spec is None:
            self._road.read_spec(generation.job_id, partial(self._on_spec, generation, claim))
        else:
            self._on_spec(generation, claim, claim.spec)

    def _on_spec(self, generation: Generation, claim: jobs.Claim, spec: JobSpec | None) -> None:
        """The claim is committed and the spec is read, which is None for a job that was erased meanwhile."""
        if spec is None:
            self._end_walk(generation, Left.ERASED)
            return
        generation.begin(claim.attempt, spec, self._salt(generation, claim))
        start = start_row(generation.job_id, generation.attempt)
        self._road.publisher.put_row_and_read(start, then=partial(self._on_log, generation))

    def _acquit(self, generation: Generation) -> None:
        job_id, attempt = generation.job_id, generation.attempt
        done = self._road.writer.submit(lambda connection: poison_jobs.clear_lost_attempts(connection, job_id, attempt))
        done.add_done_callback(partial(self._on_acquittal, generation))

    def _on_acquittal(self, generation: Generation, done: "Future[bool]") -> None:
        if done.exception() is not None:
            self._road.later(partial(self._acquit, generation))
            return
        log.info("suspect_acquitted", job_id=generation.job_id, attempt=generation.attempt)
        self._road.on_hub(partial(self._quarantine.end_trial, generation.job_id))

    def _on_outcome(self, generation: Generation, retry: Callable[[], None], done: "Future[End | Left]") -> None:
        error = done.exception()
        if error is not None:
            log.warning("outcome_not_stored", job_id=generation.job_id, error=str(error))
            self._road.later(retry)
            return
        end = done.result()
        if isinstance(end, End):
            generation.phase = Phase.ENDED
            self.num_ended += 1
            row = end_row(generation.job_id, generation.attempt, generation.seq, end)
            log.info("job_ended", job_id=generation.job_id, attempt=generation.attempt, status=end.status)
            self._road.publisher.put_rows(row, then=partial(self._end_walk, generation, None))
            return
        log.info("job_left", job_id=generation.job_id, attempt=generation.attempt, why=end)
        if end is Left.ERASED:
            drop = partial(self._road.drop_log, generation.job_id)
            self._road.publisher.put_call(drop, then=partial(self._end_walk, generation, end))
        else:
            self._end_walk(generation, end)

    # On the publisher's thread.

    def _on_committed(self, generation: Generation, batch: Round) -> None:
        """The claim of a first attempt is on the disk: publish its START and what was held."""
        generation.is_claimed = True
        batch.rows += missing_rows(generation.job_id, generation.attempt, generation.entries, None)
        if generation.stop is not None:
            self._on_quit(generation, batch)
        self._finish(generation, batch)

    def _on_log(self, generation: Generation, entries: list[LogEntry]) -> None:
        generation.is_claimed = True
        generation.resume(entries)
        if generation.is_finished:
            # The worker before this one died between its last token and its commit.
            self._close(generation)
            self._submit(generation, job_outcome.finish)
        else:
            self._run(generation)

    def _run(self, generation: Generation) -> None:
        generation.phase = Phase.RUNNING
        self._road.engine.put(partial(self._enter, generation))

    def _on_outputs(self, outputs: list[SequenceOutput], batch: Round) -> None:
        """Write down what one engine step yielded: one entry for each job."""
        events_by_job: dict[Generation, list[TokenEvent]] = {}
        for output in outputs:
            place = self._place_by_sequence.get(output.sequence_id)
            if place is None:
                continue
            generation, choice = place
            events = events_by_job.setdefault(generation, [])
            event = generation.event_of(choice, output, self._spelling)
            if event is not None:
                events.append(event)
            if output.failure is not None:
                generation.fail(output.failure)
        for generation, events in events_by_job.items():
            self._write_down(generation, events, batch)

    def _spelling(self) -> Spelling:
        # Outputs come from an engine that is loaded.
        return self._road.engine.loaded.result().spelling

    def _write_down(self, generation: Generation, events: list[TokenEvent], batch: Round) -> None:
        if events:
            generation.take(events)
            if self._quarantine.is_active and generation.num_unproven == 0:
                self._road.on_hub(partial(self._on_proof, generation))
        if events and generation.is_claimed:
            batch.rows.append(tokens_row(generation.job_id, generation.attempt, generation.seq, events))
        self._finish(generation, batch)

    def _finish(self, generation: Generation, batch: Round) -> None:
        """Commit a finished generation's outcome, once its last entries are in the log."""
        if generation.phase is Phase.RUNNING and generation.is_claimed and generation.is_finished:
            self._close(generation)
            batch.after.append(partial(self._submit, generation, job_outcome.finish))

    def _on_failure(self, generation: Generation, failure: Failure, batch: Round) -> None:
        if generation.phase is Phase.RUNNING:
            generation.fail(failure)
            self._write_down(generation, [], batch)

    def _on_quit(self, generation: Generation, batch: Round) -> None:
        """A stopped generation yields nothing more; entries put before this are in the round or in the log."""
        if generation.phase is not Phase.RUNNING:
            return
        if generation.stop is StopReason.UNCLAIMED:
            self._close(generation)
        elif generation.is_claimed:
            self._close(generation)
            batch.after.append(partial(self._submit, generation, job_outcome.leave))

    def _close(self, generation: Generation) -> None:
        generation.phase = Phase.CLOSING
        left_over = [
            sequence_id
            for sequence_id in generation.sequence_ids()
            if self._place_by_sequence.pop(sequence_id, None) is not None
        ]
        if generation.failure is not None:
            self._road.engine.put(partial(_cancel, left_over))

    def _submit(self, generation: Generation, operation: "Operation") -> None:
        now = datetime.now(UTC)
        done = self._road.writer.submit(lambda connection: operation(connection, generation, now))
        retry = partial(self._submit, generation, operation)
        done.add_done_callback(partial(self._on_outcome, generation, retry))

    def on_fenced(self, job_ids: Iterable[str]) -> None:
        """Redis refused entries: another attempt writes these logs now."""
        for job_id in job_ids:
            self.stop(job_id, StopReason.OWNERSHIP_LOST)

    def missing(self) -> list[Row]:
        """What the logs of live jobs lack of what was generated here.

        A log that is gone stays so once the row has ended: it tells everything, and the job may be erased by now.
        """
        live = [one.generation for one in list(self._live.values()) if one.generation.is_claimed]
        tail_by_job = self._road.tails([generation.job_id for generation in live])
        rows: list[Row] = []
        for generation in live:
            tail = tail_by_job[generation.job_id]
            if tail is not None or generation.phase is not Phase.ENDED:
                rows += missing_rows(generation.job_id, generation.attempt, generation.entries, tail)
        return rows

    # On the engine's thread.

    def on_step(self, outputs: list[SequenceOutput]) -> None:
        """Pass on what one step yielded."""
        self._road.publisher.put(partial(self._on_outputs, outputs))

    def _enter(self, generation: Generation, engine: Engine) -> None:
        if generation.stop is not None:
            self._quit(generation, engine)
            return
        try:
            for choice, request in generation.requests():
                self._place_by_sequence[request.sequence_id] = (generation, choice)
                engine.add(request)
        except PlatformError as error:
            self._refuse(generation, Failure(code=error.code, message=error.message))
        except Exception as error:  # a fault in one job's request is that job's alone
            log.exception("engine_refused", job_id=generation.job_id)
            self._refuse(generation, Failure(code="engine_fault", message=f"The engine failed: {type(error).__name__}"))

    def _refuse(self, generation: Generation, failure: Failure) -> None:
        self._road.publisher.put(partial(self._on_failure, generation, failure))

    def _quit(self, generation: Generation, engine: Engine) -> None:
        # Before RUNNING it is not in the engine yet; `_enter` will see its stop.
        if generation.phase is Phase.RUNNING:
            _cancel(generation.sequence_ids(), engine)
            self._road.publisher.put(partial(self._on_quit, generation))


Operation = Callable[[Connection, Generation, datetime], End | Left]


def _cancel(sequence_ids: Iterable[str], engine: Engine) -> None:
    for sequence_id in sequence_ids:
        engine.cancel(sequence_id)
