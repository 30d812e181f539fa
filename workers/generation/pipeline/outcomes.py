"""The outcome stage: how a job ended here reaches its row. On the writer's thread."""

from collections.abc import Callable
from concurrent.futures import Future
from datetime import UTC, datetime
from functools import partial

import structlog
from sqlalchemy import Connection

from storage.contract import End, Failure, JobHeader
from workers.generation.pipeline import job_outcome
from workers.generation.pipeline.job_generation import Generation, Phase
from workers.generation.pipeline.job_outcome import Left
from workers.generation.pipeline.ports import Ports
from workers.generation.pipeline.stages import Stages

_NOT_FOLDED = Failure(code="server_error", message="The answer could not be added to its conversation.")

log = structlog.get_logger()
Operation = Callable[[Connection, Generation, datetime], End | Left]


class Outcomes:
    """Commits outcomes, and repeats those that the database did not take.

    num_ended: jobs that came to an end here
    """

    def __init__(self, ports: Ports, stages: Stages) -> None:
        self._ports = ports
        self._stages = stages
        self.num_ended = 0

    def finish(self, generation: Generation) -> None:
        """As `OutcomeStage`."""
        if generation.is_turn and generation.failure is None:
            self._ports.read_header(generation.job_id, partial(self._finish_turn, generation))
        else:
            self._submit(generation, job_outcome.finish)

    def _finish_turn(self, generation: Generation, header: JobHeader | None) -> None:
        """On the reader's thread: the fold of a long answer would delay everybody's commit.

        header: None for a job that was erased, whose end writes nothing
        """
        turn = None
        try:
            turn = None if header is None else job_outcome.turn_of(generation, header)
        except Exception:  # exception boundary: no answer may leave its job without an end
            log.exception("turn_not_folded", job_id=generation.job_id)
            generation.fail(_NOT_FOLDED)
        self._submit(generation, partial(job_outcome.finish, turn=turn))

    def leave(self, generation: Generation) -> None:
        """As `OutcomeStage`."""
        self._submit(generation, job_outcome.leave)

    def abandon(self, generation: Generation) -> "Future[End | Left]":
        """Give a claimed job's row back, past the other stages; for a worker whose other threads are gone."""
        now = datetime.now(UTC)
        return self._ports.writer.submit(lambda connection: job_outcome.leave(connection, generation, now))

    def _submit(self, generation: Generation, operation: Operation) -> None:
        now = datetime.now(UTC)
        done = self._ports.writer.submit(lambda connection: operation(connection, generation, now))
        done.add_done_callback(partial(self._on_outcome, generation, operation))

    def _on_outcome(self, generation: Generation, operation: Operation, done: "Future[End | Left]") -> None:
        error = done.exception()
        if error is not None:
            log.warning("outcome_not_stored", job_id=generation.job_id, error=str(error))
            self._ports.later(partial(self._submit, generation, operation))
            return
        end = done.result()
        if isinstance(end, End):
            generation.phase = Phase.ENDED
            self.num_ended += 1
            log.info("job_ended", job_id=generation.job_id, attempt=generation.attempt, status=end.status)
            self._stages.log.end(generation, end)
            return
        log.info("job_left", job_id=generation.job_id, attempt=generation.attempt, why=end)
        if end is Left.ERASED:
            self._stages.log.erase(generation, end)
        else:
            self._stages.intake.answer(generation, end)
