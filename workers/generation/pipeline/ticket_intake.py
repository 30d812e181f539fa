"""The pipeline's first and last stage: takes tickets, and answers them. On the event loop's thread."""

from collections.abc import Collection
from functools import partial

from workers.broker.ticket import Ticket
from workers.generation.pipeline.job_generation import Generation
from workers.generation.pipeline.job_outcome import Left
from workers.generation.pipeline.live_jobs import LiveJobs
from workers.generation.pipeline.poison_job_isolation import PoisonJobIsolation
from workers.generation.pipeline.ports import Ports
from workers.generation.pipeline.stages import Stages


class TicketIntake:
    """Tickets in and out, and who has to wait beside a possible poison job."""

    def __init__(self, ports: Ports, stages: Stages, jobs: LiveJobs) -> None:
        self._ports = ports
        self._stages = stages
        self._jobs = jobs
        self._is_draining = False
        self._isolation = PoisonJobIsolation(self._begin, self._has_unvalidated)

    @property
    def watches(self) -> bool:
        """Whether jobs wait for others to be validated; read on other threads."""
        return self._isolation.is_active

    def accept(self, job_id: str, ticket: Ticket) -> None:
        """Take a ticket; a second one of a live job is answered with the first."""
        if self._is_draining:
            ticket.give_back()
            return
        live = self._jobs.find(job_id)
        if live is not None:
            live.tickets.append(ticket)
            return
        self._jobs.add(job_id, ticket)
        if self._isolation.is_active:
            self._isolation.hold(job_id)
        else:
            self._begin(job_id, False)

    def drain(self) -> None:
        """Take no more jobs; those that wait because of an isolated one go back at once."""
        self._is_draining = True
        for job_id in self._isolation.clear():
            if (live := self._jobs.find(job_id)) is not None:
                self._answer(live.generation, Left.GIVEN_BACK)

    # Called by other stages; each runs on the event loop.

    def isolate(self, generation: Generation) -> None:
        """As `IntakeStage`."""
        self._ports.on_event_loop(partial(self._isolate, generation))

    def note_validated(self, generation: Generation) -> None:
        """As `IntakeStage`."""
        self._ports.on_event_loop(partial(self._on_validated, generation))

    def end_isolation(self, job_id: str) -> None:
        """As `IntakeStage`."""
        self._ports.on_event_loop(partial(self._isolation.end_isolation, job_id))

    def answer(self, generation: Generation, left: Left | None) -> None:
        """As `IntakeStage`."""
        self._ports.on_event_loop(partial(self._answer, generation, left))

    def _begin(self, job_id: str, is_isolated: bool) -> None:
        self._stages.claims.claim(job_id, is_isolated=is_isolated)

    def _has_unvalidated(self, waiting: Collection[str]) -> bool:
        return any(not one.is_validated for one in self._jobs.generations() if one.job_id not in waiting)

    def _isolate(self, generation: Generation) -> None:
        if self._is_draining:
            self._answer(generation, Left.GIVEN_BACK)
        else:
            self._isolation.add(generation.job_id)

    def _on_validated(self, generation: Generation) -> None:
        if self._isolation.is_isolated(generation.job_id):
            self._stages.claims.clear_lost_attempts(generation)
        else:
            self._isolation.advance()

    def _answer(self, generation: Generation, left: Left | None) -> None:
        live = self._jobs.pop(generation.job_id)
        self._isolation.forget(generation.job_id)
        first, *others = live.tickets
        if left is Left.GIVEN_BACK:
            for ticket in live.tickets:
                ticket.give_back()
            return
        first.acknowledge()
        for ticket in others:
            # A ticket that came while a lost attempt still ran here may be the next attempt's.
            if left is Left.OWNERSHIP_LOST:
                self.accept(generation.job_id, ticket)
            else:
                ticket.acknowledge()
