"""Poison-job isolation: a job that may kill workers begins only beside jobs that are known to be harmless.

A job that kills its worker also loses the attempts of every other job there, and the rows cannot show which job did it.
So a possible poison job (`storage.jobs.poison_jobs`) begins only when every other job here has run for a while, and no
other job begins until the isolated one has. A worker that dies meanwhile was killed by that job. Used on the event
loop's thread only. See docs/decisions/0018-poison-job-isolation.md.
"""

from collections import deque
from collections.abc import Callable, Collection
from enum import Enum, auto


class ClaimRefusal(Enum):
    """Why a claim was refused, where the reason is known."""

    NEEDS_ISOLATION = auto()


class PoisonJobIsolation:
    """The jobs that wait, and the isolated one; new jobs and possible poison jobs take turns."""

    def __init__(self, begin: Callable[[str, bool], None], has_unvalidated: Callable[[Collection[str]], bool]) -> None:
        """begin:        claims a job; the flag says that it is isolated
        has_unvalidated: whether a job on this worker, but for these that wait, may still do harm
        """
        self._begin = begin
        self._has_unvalidated = has_unvalidated
        self._to_isolate: deque[str] = deque()
        self._held: deque[str] = deque()
        self._isolated: str | None = None

    @property
    def is_active(self) -> bool:
        """Whether new jobs have to wait. Also read on other threads."""
        return self._isolated is not None or bool(self._to_isolate)

    def is_isolated(self, job_id: str) -> bool:
        """Whether this job runs isolated."""
        return self._isolated == job_id

    def hold(self, job_id: str) -> None:
        """Let a new job wait for its turn."""
        self._held.append(job_id)

    def add(self, job_id: str) -> None:
        """Queue a possible poison job for its isolated run."""
        self._to_isolate.append(job_id)
        self.advance()

    def end_isolation(self, job_id: str) -> None:
        """The isolated job has run well, or has left: begin the new jobs, then the next possible poison job."""
        if self._isolated == job_id:
            self._isolated = None
            self._release()
            self.advance()

    def forget(self, job_id: str) -> None:
        """The job is not here any more."""
        for waiting in (self._to_isolate, self._held):
            if job_id in waiting:
                waiting.remove(job_id)
        self.end_isolation(job_id)
        self.advance()

    def advance(self) -> None:
        """Begin what can begin; to be called whenever a job has made progress or has left."""
        if not self.is_active:
            self._release()
        elif self._isolated is None and not self._has_unvalidated({*self._to_isolate, *self._held}):
            self._isolated = self._to_isolate.popleft()
            self._begin(self._isolated, True)

    def clear(self) -> list[str]:
        """Every job that waits, which is forgotten."""
        waiting = [*self._to_isolate, *self._held]
        self._to_isolate.clear()
        self._held.clear()
        return waiting

    def _release(self) -> None:
        held, self._held = self._held, deque()
        for job_id in held:
            self._begin(job_id, False)
