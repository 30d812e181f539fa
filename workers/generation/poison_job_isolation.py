"""Who has to wait so that a suspect begins among jobs that are known to do no harm. Of the hub's thread alone.

A job that kills its worker takes its neighbours with it, and from the rows alone all of them look guilty. So a suspect
(`storage.jobs.poison_jobs`) begins only when every other job here has run well for a while, and nobody else begins
until it has: a worker that dies meanwhile was killed by it. See docs/decisions/0018-poison-job-isolation.md.
"""

from collections import deque
from collections.abc import Callable, Collection
from enum import Enum, auto


class Verdict(Enum):
    """What a claim can come to besides yes and no."""

    SUSPECT = auto()


class Quarantine:
    """The jobs that wait, and the one on trial; new jobs and suspects take turns."""

    def __init__(self, begin: Callable[[str, bool], None], has_unproven: Callable[[Collection[str]], bool]) -> None:
        """begin:        sends a job to its claim; told whether it is on trial
        has_unproven: whether a job on this worker, but for these that wait, may still do harm
        """
        self._begin = begin
        self._has_unproven = has_unproven
        self._suspects: deque[str] = deque()
        self._held: deque[str] = deque()
        self._on_trial: str | None = None

    @property
    def is_active(self) -> bool:
        """Whether new jobs have to wait. Also read on other threads."""
        return self._on_trial is not None or bool(self._suspects)

    def is_on_trial(self, job_id: str) -> bool:
        """Whether it is this job that is watched."""
        return self._on_trial == job_id

    def hold(self, job_id: str) -> None:
        """Let a new job wait for its turn."""
        self._held.append(job_id)

    def add(self, job_id: str) -> None:
        """Let a suspect wait for its trial."""
        self._suspects.append(job_id)
        self.advance()

    def end_trial(self, job_id: str) -> None:
        """The suspect has run well, or has left: the new jobs' turn, then the next suspect's."""
        if self._on_trial == job_id:
            self._on_trial = None
            self._release()
            self.advance()

    def forget(self, job_id: str) -> None:
        """The job is not here any more."""
        for line in (self._suspects, self._held):
            if job_id in line:
                line.remove(job_id)
        self.end_trial(job_id)
        self.advance()

    def advance(self) -> None:
        """Begin what can begin; to be called whenever a job has proven itself or has left."""
        if not self.is_active:
            self._release()
        elif self._on_trial is None and not self._has_unproven({*self._suspects, *self._held}):
            self._on_trial = self._suspects.popleft()
            self._begin(self._on_trial, True)

    def clear(self) -> list[str]:
        """Every job that waits, which is forgotten."""
        waiting = [*self._suspects, *self._held]
        self._suspects.clear()
        self._held.clear()
        return waiting

    def _release(self) -> None:
        held, self._held = self._held, deque()
        for job_id in held:
            self._begin(job_id, False)
