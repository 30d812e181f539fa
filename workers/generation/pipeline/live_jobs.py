"""The table of live jobs: those whose tickets are not answered yet."""

from collections.abc import Callable
from dataclasses import dataclass

from workers.broker.ticket import Ticket
from workers.generation.pipeline.job_generation import Generation, Phase


@dataclass(slots=True, eq=False)
class LiveJob:
    """A job on this worker, and every ticket that came for it."""

    generation: Generation
    tickets: list[Ticket]


class LiveJobs:
    """Live jobs by id, changed on the event loop's thread alone, read on any.

    choices: (generation, choice) by sequence id; the engine's thread adds, the publisher's removes
    """

    def __init__(self, new_job: Callable[[str], Generation] = Generation) -> None:
        """new_job: a job of the kind that the worker runs, by its id"""
        self._new_job = new_job
        self._by_id: dict[str, LiveJob] = {}
        self.choices: dict[str, tuple[Generation, int]] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._by_id

    def add(self, job_id: str, ticket: Ticket) -> None:
        """A new live job."""
        self._by_id[job_id] = LiveJob(self._new_job(job_id), [ticket])

    def find(self, job_id: str) -> LiveJob | None:
        """The job, if it is live."""
        return self._by_id.get(job_id)

    def pop(self, job_id: str) -> LiveJob:
        """The job, which is not live any more."""
        return self._by_id.pop(job_id)

    def generations(self) -> list[Generation]:
        """Every live job's generation."""
        return [live.generation for live in list(self._by_id.values())]

    def running(self) -> dict[str, int]:
        """The attempt of every job that this worker believes to run, by job id."""
        generations = self.generations()
        return {one.job_id: one.attempt for one in generations if one.is_claimed and one.phase is Phase.RUNNING}
