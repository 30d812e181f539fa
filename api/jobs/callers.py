"""Waiting callers of foreground jobs: a job is cancelled when its last caller disconnects."""

from dataclasses import dataclass


@dataclass(slots=True)
class _Waiting:
    count: int = 0
    newest: int = 0


class Callers:
    """The callers of this process by job. Across processes, the caller who attached last decides."""

    def __init__(self) -> None:
        self._by_job: dict[str, _Waiting] = {}

    def add(self, job_id: str, number: int) -> None:
        """Count one more caller.

        number: what `attaching.attach` returned; 0 for the caller that created the job
        """
        waiting = self._by_job.setdefault(job_id, _Waiting())
        waiting.count += 1
        waiting.newest = max(waiting.newest, number)

    def remove(self, job_id: str) -> int | None:
        """The newest number among the callers that waited here, once none is left; None while one is."""
        waiting = self._by_job[job_id]
        waiting.count -= 1
        if waiting.count > 0:
            return None
        del self._by_job[job_id]
        return waiting.newest
