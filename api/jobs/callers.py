"""Who waits in this process for a foreground job, so that it is given up when nobody does any more."""

from dataclasses import dataclass


@dataclass(slots=True)
class _Waiting:
    count: int = 0
    newest: int = 0


class Callers:
    """The callers of this process by job. Of callers in several processes the one who joined last decides."""

    def __init__(self) -> None:
        self._by_job: dict[str, _Waiting] = {}

    def join(self, job_id: str, number: int) -> None:
        """One more waits; its number is what `attaching.attach` told it, 0 for who made the job."""
        waiting = self._by_job.setdefault(job_id, _Waiting())
        waiting.count += 1
        waiting.newest = max(waiting.newest, number)

    def leave(self, job_id: str) -> int | None:
        """The newest number that waited here, now that nobody does; None while somebody still does."""
        waiting = self._by_job[job_id]
        waiting.count -= 1
        if waiting.count > 0:
            return None
        del self._by_job[job_id]
        return waiting.newest
