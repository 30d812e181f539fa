"""The stages of the pipeline as they see each other: every call puts work on the queue of the thread that it names."""

from collections.abc import Iterable
from typing import Protocol

from storage.contract import End, Failure
from workers.engine.sequence import SequenceOutput
from workers.generation.pipeline.job_generation import Generation
from workers.generation.pipeline.job_outcome import Left


class IntakeStage(Protocol):
    """Tickets, on the event loop's thread."""

    def isolate(self, generation: Generation) -> None:
        """The job may be a poison job: it waits for its isolated run."""

    def note_validated(self, generation: Generation) -> None:
        """The job has run for a while without harm."""

    def end_isolation(self, job_id: str) -> None:
        """The isolated job has run for a while without harm, and its row says so."""

    def answer(self, generation: Generation, left: Left | None) -> None:
        """The job is done here: answer its tickets. left: why, where it has no END of this worker's"""


class ClaimStage(Protocol):
    """Claims, on the writer's thread."""

    def claim(self, job_id: str, *, is_isolated: bool) -> None:
        """Claim a live job; the stage decides where it goes then."""

    def clear_lost_attempts(self, generation: Generation) -> None:
        """Reset the lost attempts of the isolated job, then end its isolation."""


class EngineStage(Protocol):
    """Sequences, on the engine's thread."""

    def enter(self, generation: Generation) -> None:
        """Add the job's sequences."""

    def quit(self, generation: Generation) -> None:
        """Take the job's sequences out, if it is in the engine."""

    def cancel(self, sequence_ids: Iterable[str]) -> None:
        """Take some sequences out."""


class LogStage(Protocol):
    """Log entries, on the publisher's thread."""

    def open(self, generation: Generation) -> None:
        """The claim of a first attempt is committed: publish its START and what was generated meanwhile."""

    def resume(self, generation: Generation) -> None:
        """A later attempt is claimed: read its log, then go on from there."""

    def publish(self, outputs: list[SequenceOutput]) -> None:
        """Append the outputs of one engine step."""

    def fail(self, generation: Generation, failure: Failure) -> None:
        """The engine refused the job."""

    def close_stopped(self, generation: Generation) -> None:
        """The job was taken out of the engine: nothing follows."""

    def end(self, generation: Generation, end: End) -> None:
        """The row has ended: append the END, then answer the tickets."""

    def erase(self, generation: Generation, left: Left) -> None:
        """The job was erased: delete its log, then answer the tickets."""


class OutcomeStage(Protocol):
    """Outcomes, on the writer's thread."""

    def finish(self, generation: Generation) -> None:
        """Commit the outcome of a finished job."""

    def leave(self, generation: Generation) -> None:
        """Give the row of a stopped job back, unless it has ended or belongs to another attempt."""


class Stages:
    """All stages; each is set once, before the first job."""

    intake: IntakeStage
    claims: ClaimStage
    engine: EngineStage
    log: LogStage
    outcomes: OutcomeStage
