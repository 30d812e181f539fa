"""What a fault has at hand, and what it tells of itself."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from tests.drill.ledger import Ledger, Reader
from tests.drill.stage import Apart, Stage, Supervised, WorkerProcess
from tests.drill.witness import Observer, running_on
from tests.waiting import wait_until

# The lease of a worker, as the platform has it when nothing says otherwise.
LEASE_S = 6.0
PATIENCE_S = 60.0
_FEWEST_JOBS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """One fault, as it happened; times are `time.monotonic()`.

    at:        when it began
    back:      from when recovery is counted: what died is back, or another one could have gone on
    target_s:  how long recovery may take; None promises nothing
    away:      between which moments a part was away, so that creating must be refused in time
    interrupted: jobs on a worker that died, with the attempt that ended; those must go on in a later attempt
    took_s:    what is measured where that is not recovery
    doomed:    ids of jobs that must fail
    note:      for the table
    """

    at: float
    back: float
    target_s: float | None = None
    away: tuple[float, float] | None = None
    interrupted: dict[str, int] | None = None
    took_s: float | None = None
    doomed: frozenset[str] = frozenset()
    note: str = ""


@dataclass(slots=True, kw_only=True)
class Scene:
    """A platform under load.

    name:       of the load; jobs that the fault itself asks for carry it
    num_tokens: length of the load's answers, which the judge knows
    """

    name: str
    num_tokens: int
    stage: Stage
    random: random.Random
    observer: Observer
    reader: Reader
    ledger: Ledger

    @property
    def supervised(self) -> Supervised:
        """The stage of a fault that needs a supervisor."""
        return cast(Supervised, self.stage)

    @property
    def apart(self) -> Apart:
        """The stage of a fault that needs parts of their own."""
        return cast(Apart, self.stage)

    def pause(self, low_s: float, high_s: float) -> None:
        """Let a random while pass: the load runs on in its own process."""
        time.sleep(self.random.uniform(low_s, high_s))

    def busiest_worker(self) -> tuple[WorkerProcess, dict[str, int]]:
        """The ready worker with the most jobs, and those; a fault that hits nobody shows nothing."""

        def find() -> tuple[WorkerProcess, dict[str, int]] | None:
            found = [(worker, running_on(self.stage.database, worker.id)) for worker in self.stage.ready_workers()]
            most = max(found, key=lambda pair: len(pair[1]), default=None)
            return most if most is not None and len(most[1]) >= _FEWEST_JOBS else None

        found = wait_until(find, PATIENCE_S, "a worker with jobs")
        assert found is not None
        return found

    def wait_for_fresh_worker(self, known: set[str]) -> float:
        """When a worker that is not among the known became ready."""
        wait_until(
            lambda: any(worker.id not in known for worker in self.stage.ready_workers()), PATIENCE_S, "a fresh worker"
        )
        return time.monotonic()

    def wait_for_redis(self) -> float:
        """When Redis answers and has read its file."""
        return _moment_of(lambda: _pings(self.stage))


def _pings(stage: Stage) -> bool:
    try:
        with stage.redis() as connection:
            return bool(connection.ping())
    except Exception:  # noqa: BLE001 - whatever it is, it is no answer
        return False


def _moment_of(is_there: Callable[[], bool]) -> float:
    wait_until(is_there, PATIENCE_S, "the part that was away")
    return time.monotonic()
