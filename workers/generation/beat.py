"""The heartbeat thread: renews the lease, compares running jobs with their rows, and retries failed operations."""

import queue
import threading
from collections.abc import Callable, Iterable, Mapping

import structlog

from storage.errors import ShuttingDown, StorageUnavailable
from storage.jobs.records import JobState

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
        self._period_s = period_s
        self._beat = beat
        self._on_fatal = on_fatal
        self._later: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="beat", daemon=True)

    def start(self) -> None:
        """Begin to beat, at once."""
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Beat no more."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def later(self, call: Callable[[], None]) -> None:
        """Run `call` at the next beat; for what failed because the database is away."""
        self._later.put(call)

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._try_beat()
                self._stopping.wait(self._period_s)
                self._try_again()
        except Exception as error:  # noqa: BLE001 - exception boundary of the thread: without a heartbeat other workers get the jobs that run here
            self._on_fatal(error)

    def _try_beat(self) -> None:
        try:
            self._beat()
        except (StorageUnavailable, ShuttingDown, TimeoutError) as error:
            log.warning("beat_failed", error=str(error))

    def _try_again(self) -> None:
        for _ in range(self._later.qsize()):
            self._later.get_nowait()()
