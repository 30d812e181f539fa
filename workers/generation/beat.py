"""The heartbeat thread: renews the lease, compares running jobs with their rows, and retries failed operations."""

import queue
from collections.abc import Callable, Iterable, Mapping

import structlog

from storage.errors import ShuttingDown, StorageUnavailable
from storage.jobs.records import JobState
from workers.periodic_thread import PeriodicThread

log = structlog.get_logger()


def strays(believed: Mapping[str, int], rows: Iterable[JobState]) -> list[str]:
    """Ids of jobs that a worker runs although their rows say otherwise: cancelled, erased, or owned by another attempt.

    believed: attempt by job id, taken before the rows were read
    rows:     the jobs in progress under this worker's name
    """
    rightful = {row.job_id: row.attempt for row in rows}
    return [job_id for job_id, attempt in believed.items() if rightful.get(job_id) != attempt]


class Beat:
    """Beats every `period_s`; a beat that fails is only a late one."""

    def __init__(self, period_s: float, beat: Callable[[], None], on_fatal: Callable[[BaseException], None]) -> None:
        self._beat = beat
        self._on_fatal = on_fatal
        self._failed: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._thread = PeriodicThread("beat", self._work, period_s=period_s, on_error=self._end)

    def start(self) -> None:
        """Begin to beat, at once."""
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Beat no more; what has failed is retried once more."""
        self._thread.stop(timeout_s)
        try:
            self._retry()
        except (StorageUnavailable, ShuttingDown, TimeoutError) as error:
            log.warning("beat_failed", error=str(error))

    def later(self, call: Callable[[], None]) -> None:
        """Run `call` at the next beat; for what failed because the database is away."""
        self._failed.put(call)

    def _work(self) -> bool:
        self._retry()
        try:
            self._beat()
        except (StorageUnavailable, ShuttingDown, TimeoutError) as error:
            log.warning("beat_failed", error=str(error))
        return False

    def _end(self, error: Exception) -> bool:
        # Without a heartbeat other workers get the jobs that run here.
        self._on_fatal(error)
        return False

    def _retry(self) -> None:
        for _ in range(self._failed.qsize()):
            self._failed.get_nowait()()
