"""The claim stage: a live job becomes this worker's, in its row. On the writer's thread.

A first attempt enters the engine when its claim was executed and before it is committed, so that the prefill need not
wait for the disk (docs/decisions/0006); what it yields is held until the commit. The transaction itself only claims.
"""

from concurrent.futures import Future
from datetime import UTC, datetime
from functools import partial

import structlog
from sqlalchemy import Connection

from storage.embedding_job import AnySpec
from storage.jobs import jobs, poison_jobs
from workers.generation.pipeline.job_generation import Generation, Phase, StopReason
from workers.generation.pipeline.job_outcome import Left
from workers.generation.pipeline.live_jobs import LiveJobs
from workers.generation.pipeline.poison_job_isolation import ClaimRefusal
from workers.generation.pipeline.ports import Ports
from workers.generation.pipeline.stages import Stages

log = structlog.get_logger()
ClaimReply = jobs.Claim | ClaimRefusal | None


class Claims:
    """Claims live jobs and decides where each goes then."""

    def __init__(
        self,
        ports: Ports,
        stages: Stages,
        live: LiveJobs,
        worker_id: str,
        *,
        shares_prefixes: bool,
        isolation_threshold: int,
    ) -> None:
        self._ports = ports
        self._stages = stages
        self._live = live
        self._worker_id = worker_id
        self._shares_prefixes = shares_prefixes
        self._isolation_threshold = isolation_threshold

    def claim(self, job_id: str, *, is_isolated: bool) -> None:
        """As `ClaimStage`."""
        live = self._live.find(job_id)
        assert live is not None
        reply = self._ports.writer.submit(
            partial(self._claim, job_id, is_isolated), on_executed=partial(self._on_executed, live.generation)
        )
        reply.add_done_callback(partial(self._on_claim, live.generation))

    def clear_lost_attempts(self, generation: Generation) -> None:
        """As `ClaimStage`."""
        job_id, attempt = generation.job_id, generation.attempt
        done = self._ports.writer.submit(lambda c: poison_jobs.clear_lost_attempts(c, job_id, attempt))
        done.add_done_callback(partial(self._on_cleared, generation))

    def _claim(self, job_id: str, is_isolated: bool, connection: Connection) -> ClaimReply:
        """The claim, or why there is none, where that is known. A transaction and nothing else."""
        ours = (connection, job_id, self._worker_id, datetime.now(UTC))
        if is_isolated:
            return jobs.claim(*ours)
        claim = jobs.claim(*ours, lost_below=self._isolation_threshold)
        if claim is None and poison_jobs.needs_isolation(connection, job_id, self._isolation_threshold):
            return ClaimRefusal.NEEDS_ISOLATION
        return claim

    def _on_executed(self, generation: Generation, claim: ClaimReply) -> None:
        """Enter the engine ahead of the commit; an operation that is executed again finds the generation begun."""
        if not isinstance(claim, jobs.Claim) or claim.attempt > 1 or claim.spec is None:
            return
        if generation.phase is Phase.CLAIMING:
            self._begin(generation, claim, claim.spec)
            self._stages.engine.enter(generation)

    def _on_claim(self, generation: Generation, reply: "Future[ClaimReply]") -> None:
        error = reply.exception()
        claim = None if error is not None else reply.result()
        if claim is ClaimRefusal.NEEDS_ISOLATION:
            self._stages.intake.isolate(generation)
            return
        is_false_start = generation.phase is Phase.RUNNING and (claim is None or claim.attempt != generation.attempt)
        if is_false_start:
            generation.stop = StopReason.UNCLAIMED
            self._stages.engine.quit(generation)
        if error is not None or (is_false_start and claim is not None):
            log.warning("claim_failed", job_id=generation.job_id, error=str(error))
            self._ports.later(partial(self._stages.intake.answer, generation, Left.GIVEN_BACK))
        elif claim is None:
            self._stages.intake.answer(generation, None)
        elif generation.phase is Phase.RUNNING:
            self._stages.log.open(generation)
        elif claim.spec is None:
            self._ports.read_spec(generation.job_id, partial(self._on_spec, generation, claim))
        else:
            self._on_spec(generation, claim, claim.spec)

    def _on_spec(self, generation: Generation, claim: jobs.Claim, spec: AnySpec | None) -> None:
        """The claim is committed and the spec is read; None for a job that was erased meanwhile."""
        if spec is None:
            self._stages.intake.answer(generation, Left.ERASED)
            return
        self._begin(generation, claim, spec)
        self._stages.log.resume(generation)

    def _begin(self, generation: Generation, claim: jobs.Claim, spec: AnySpec) -> None:
        # Nobody may learn from a hit in the prefix cache what another owner asked.
        salt = f"{claim.model}\0{claim.owner if self._shares_prefixes else generation.job_id}"
        generation.is_turn = claim.is_turn
        generation.begin(claim.attempt, spec, salt)

    def _on_cleared(self, generation: Generation, done: "Future[bool]") -> None:
        if done.exception() is not None:
            self._ports.later(partial(self.clear_lost_attempts, generation))
            return
        log.info("lost_attempts_cleared", job_id=generation.job_id, attempt=generation.attempt)
        self._stages.intake.end_isolation(generation.job_id)
