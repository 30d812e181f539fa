"""The generation pipeline: ticket, claim, engine, log, outcome, acknowledgement. One stage a thread.

    stage           thread      takes                            hands to
    TicketIntake    event loop  a ticket                         Claims
    Claims          writer      a job to claim                   EngineFeed and LogFeed
    EngineFeed      engine      sequences; one step's outputs    LogFeed
    LogFeed         publisher   outputs                          Outcomes, when a job is finished
    Outcomes        writer      an outcome to commit             LogFeed (the END)
    LogFeed         publisher   the END is in the log            TicketIntake (acknowledge)

No stage waits for another: each hand-over is a queue, and one thread touches a job at a time.
"""

from collections.abc import Iterable
from concurrent.futures import Future

from storage.broker.event_log import Row
from storage.contract import End
from storage.jobs import poison_jobs
from workers.broker.ticket import Ticket
from workers.engine.sequence import SequenceOutput
from workers.generation.pipeline.claims import Claims
from workers.generation.pipeline.engine_feed import EngineFeed
from workers.generation.pipeline.job_generation import StopReason
from workers.generation.pipeline.job_outcome import Left
from workers.generation.pipeline.live_jobs import LiveJobs
from workers.generation.pipeline.log_feed import LogFeed
from workers.generation.pipeline.outcomes import Outcomes
from workers.generation.pipeline.ports import Ports
from workers.generation.pipeline.stages import Stages
from workers.generation.pipeline.ticket_intake import TicketIntake


class Pipeline:
    """The stages, put together, and what the process asks of all of them."""

    def __init__(
        self,
        worker_id: str,
        ports: Ports,
        *,
        shares_prefixes: bool = True,
        isolation_threshold: int = poison_jobs.isolation_threshold(3),
    ) -> None:
        """shares_prefixes:     whether jobs of one owner share what the cache holds of their prompts
        isolation_threshold: lost attempts from which a job runs isolated
        """
        self._live = LiveJobs(ports.engine.new_job)
        self._stages = stages = Stages()
        self._intake = TicketIntake(ports, stages, self._live)
        self._engine = EngineFeed(ports, stages, self._live)
        self._log = LogFeed(ports, stages, self._live, self._intake)
        self._outcomes = Outcomes(ports, stages)
        stages.claims = Claims(
            ports,
            stages,
            self._live,
            worker_id,
            shares_prefixes=shares_prefixes,
            isolation_threshold=isolation_threshold,
        )
        stages.intake, stages.engine, stages.log = self._intake, self._engine, self._log
        stages.outcomes = self._outcomes

    @property
    def num_live(self) -> int:
        """Jobs whose tickets are not answered yet."""
        return len(self._live)

    @property
    def num_ended(self) -> int:
        """Jobs that came to an end here."""
        return self._outcomes.num_ended

    def running(self) -> dict[str, int]:
        """The attempt of every job that this worker believes to run, by job id."""
        return self._live.running()

    def knows(self, job_id: str) -> bool:
        """Whether the job is on this worker, in whatever phase."""
        return job_id in self._live

    def accept(self, job_id: str, ticket: Ticket) -> None:
        """Take a ticket, on the event loop's thread; it is answered there when its job has left this worker."""
        self._intake.accept(job_id, ticket)

    def drain(self) -> None:
        """Take no more jobs; on the event loop's thread."""
        self._intake.drain()

    def on_step(self, outputs: list[SequenceOutput]) -> None:
        """Take what one engine step yielded, on the engine's thread."""
        self._engine.on_step(outputs)

    def missing(self) -> list[Row]:
        """What the logs of live jobs lack of what was generated here; on the publisher's thread."""
        return self._log.missing()

    def on_fenced(self, job_ids: Iterable[str]) -> None:
        """Redis refused entries: another attempt writes these logs now."""
        for job_id in job_ids:
            self.stop(job_id, StopReason.OWNERSHIP_LOST)

    def stop(self, job_id: str, reason: StopReason) -> None:
        """Take a job out of the engine before the next step, from any thread; its row decides what it comes to."""
        live = self._live.find(job_id)
        if live is not None:
            live.generation.stop = live.generation.stop or reason
            self._stages.engine.quit(live.generation)

    def stop_all(self, reason: StopReason) -> None:
        """Take every job out of the engine."""
        for generation in self._live.generations():
            self.stop(generation.job_id, reason)

    def abandon(self) -> "list[Future[End | Left]]":
        """Give every claimed job's row back, past the queues; for a worker whose other threads are gone."""
        return [self._outcomes.abandon(one) for one in self._live.generations() if one.attempt]
