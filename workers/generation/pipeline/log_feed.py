"""The log stage: what the engine yields becomes entries of job logs. On the publisher's thread."""

from functools import partial

from storage.broker.event_log import Row
from storage.contract import End, Failure, LogEntry, TokenEvent
from workers.engine.sequence import SequenceOutput
from workers.generation.pipeline.job_generation import Generation, Phase, StopReason
from workers.generation.pipeline.job_outcome import Left
from workers.generation.pipeline.live_jobs import LiveJobs
from workers.generation.pipeline.ports import Ports
from workers.generation.pipeline.stages import Stages
from workers.generation.pipeline.ticket_intake import TicketIntake
from workers.publishing.log_entries import end_row, missing_rows, start_row, tokens_row
from workers.publishing.publisher import Round


class LogFeed:
    """Turns engine outputs into log entries, and notices which jobs are finished."""

    def __init__(self, ports: Ports, stages: Stages, live: LiveJobs, intake: TicketIntake) -> None:
        """intake: asked whether jobs wait for others to be validated"""
        self._ports = ports
        self._stages = stages
        self._live = live
        self._intake = intake

    # Called by other stages; each runs on the publisher's thread.

    def open(self, generation: Generation) -> None:
        """As `LogStage`."""
        self._ports.publisher.put(partial(self._open, generation))

    def resume(self, generation: Generation) -> None:
        """As `LogStage`."""
        start = start_row(generation.job_id, generation.attempt)
        self._ports.publisher.put_row_and_read(start, then=partial(self._resume, generation))

    def publish(self, outputs: list[SequenceOutput]) -> None:
        """As `LogStage`."""
        self._ports.publisher.put(partial(self._publish, outputs))

    def fail(self, generation: Generation, failure: Failure) -> None:
        """As `LogStage`."""
        self._ports.publisher.put(partial(self._fail, generation, failure))

    def close_stopped(self, generation: Generation) -> None:
        """As `LogStage`."""
        self._ports.publisher.put(partial(self._close_stopped, generation))

    def end(self, generation: Generation, end: End) -> None:
        """As `LogStage`."""
        row = end_row(generation.job_id, generation.attempt, generation.seq, end)
        self._ports.publisher.put_rows(row, then=partial(self._stages.intake.answer, generation, None))

    def erase(self, generation: Generation, left: Left) -> None:
        """As `LogStage`."""
        drop = partial(self._ports.drop_log, generation.job_id)
        self._ports.publisher.put_call(drop, then=partial(self._stages.intake.answer, generation, left))

    def missing(self) -> list[Row]:
        """What the logs of live jobs lack of what was generated here.

        A log that is gone stays so once the row has ended: the row holds everything, and the job may be erased by now.
        """
        claimed = [one for one in self._live.generations() if one.is_claimed]
        tail_by_job = self._ports.tails([generation.job_id for generation in claimed])
        rows: list[Row] = []
        for generation in claimed:
            tail = tail_by_job[generation.job_id]
            if tail is not None or generation.phase is not Phase.ENDED:
                rows += missing_rows(generation.job_id, generation.attempt, generation.entries, tail)
        return rows

    def _open(self, generation: Generation, batch: Round) -> None:
        generation.is_claimed = True
        batch.rows += missing_rows(generation.job_id, generation.attempt, generation.entries, None)
        if generation.stop is not None:
            self._close_stopped(generation, batch)
        self._finish(generation, batch)

    def _resume(self, generation: Generation, entries: list[LogEntry]) -> None:
        generation.is_claimed = True
        generation.resume(entries)
        if generation.is_finished:
            # The worker before this one died between its last token and its commit.
            self._close(generation)
            self._stages.outcomes.finish(generation)
        else:
            self._stages.engine.enter(generation)

    def _publish(self, outputs: list[SequenceOutput], batch: Round) -> None:
        """One entry for each job of the step."""
        events_by_job: dict[Generation, list[TokenEvent]] = {}
        for output in outputs:
            found = self._live.choices.get(output.sequence_id)
            if found is None:
                continue
            generation, choice = found
            events = events_by_job.setdefault(generation, [])
            event = generation.event_of(choice, output, lambda: self._ports.engine.token_bytes)
            if event is not None:
                events.append(event)
            if output.failure is not None:
                generation.fail(output.failure)
        for generation, events in events_by_job.items():
            self._append(generation, events, batch)

    def _append(self, generation: Generation, events: list[TokenEvent], batch: Round) -> None:
        if events:
            generation.take(events)
            if self._intake.watches and generation.num_unvalidated == 0:
                self._stages.intake.note_validated(generation)
        if events and generation.is_claimed:
            batch.rows.append(tokens_row(generation.job_id, generation.attempt, generation.seq, events))
        self._finish(generation, batch)

    def _finish(self, generation: Generation, batch: Round) -> None:
        """Have a finished generation's outcome committed, once its last entries are in the log."""
        if generation.phase is Phase.RUNNING and generation.is_claimed and generation.is_finished:
            self._close(generation)
            batch.after.append(partial(self._stages.outcomes.finish, generation))

    def _fail(self, generation: Generation, failure: Failure, batch: Round) -> None:
        if generation.phase is Phase.RUNNING:
            generation.fail(failure)
            self._append(generation, [], batch)

    def _close_stopped(self, generation: Generation, batch: Round) -> None:
        """A stopped generation yields nothing more; entries put before this are in the round or in the log."""
        if generation.phase is not Phase.RUNNING:
            return
        if generation.stop is StopReason.UNCLAIMED:
            self._close(generation)
        elif generation.is_claimed:
            self._close(generation)
            batch.after.append(partial(self._stages.outcomes.leave, generation))

    def _close(self, generation: Generation) -> None:
        generation.phase = Phase.CLOSING
        choices = self._live.choices
        left_over = [one for one in generation.sequence_ids() if choices.pop(one, None) is not None]
        if generation.failure is not None:
            self._stages.engine.cancel(left_over)
