"""`tokenpost ps`: the platform's processes and their state."""

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from api.cli.home import is_locked
from api.cli.settings import Location
from api.cli.state import PlatformState, ProcessState, read_state
from storage.contract import WorkerStatus
from storage.fleet.tables import Worker


class ProcessView(msgspec.Struct, frozen=True, kw_only=True):
    """One process of the platform.

    state:   from the supervisor, or a generation worker's status (loading, ready, draining)
    running: jobs that a generation worker runs; None for other roles
    host:    None for this machine
    engine:  a generation worker's engine statistics by name (see `EngineView`); None for other roles
    """

    role: str
    name: str
    pid: int | None
    state: str
    since: datetime
    running: int | None = None
    model: str | None = None
    restarts: int = 0
    host: str | None = None
    log: str | None = None
    engine: dict[str, int] | None = None

    @property
    def engine_view(self) -> "EngineView | None":
        """The engine statistics; None for other roles."""
        return None if self.engine is None else msgspec.convert(self.engine, EngineView)


class EngineView(msgspec.Struct, frozen=True, kw_only=True):
    """Engine statistics: gauges, and counters since its worker started."""

    num_running: int = 0
    num_waiting: int = 0
    num_blocks: int = 0
    num_blocks_used: int = 0
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    num_output_tokens: int = 0
    num_preemptions: int = 0

    @property
    def hit_rate(self) -> float | None:
        """The share of prompt tokens that the prefix cache saved; None before the first."""
        return self.num_cached_tokens / self.num_prompt_tokens if self.num_prompt_tokens else None


def find_running(location: Location) -> PlatformState | None:
    """The state of the supervisor on this home; None when none runs."""
    return read_state(location.home) if is_locked(location.home) else None


def list_processes(state: PlatformState | None, workers: Sequence[Worker], alive: set[str]) -> list[ProcessView]:
    """The supervisor's processes first, then the live generation workers of other machines or supervisors.

    alive: ids of the workers that beat within their lease
    """
    views = [] if state is None else [_supervisor(state)]
    row_by_id = {worker.id: worker for worker in workers}
    supervised = state.processes if state is not None else []
    views += [_supervised(process, row_by_id.get(process.worker_id or "")) for process in supervised]
    known = {process.worker_id for process in supervised}
    return views + [_foreign(worker) for worker in workers if worker.id in alive and worker.id not in known]


def _supervisor(state: PlatformState) -> ProcessView:
    since = datetime.fromtimestamp(state.started_at, UTC)
    return ProcessView(role="supervisor", name="up", pid=state.pid, state="running", since=since)


def _supervised(process: ProcessState, row: Worker | None) -> ProcessView:
    return ProcessView(
        role=process.role,
        name=process.name,
        pid=process.pid,
        state=_state(process, row),
        since=datetime.fromtimestamp(process.since, UTC),
        running=row.running if row is not None else None,
        engine=row.engine if row is not None else None,
        model=process.model,
        restarts=process.restarts,
        log=process.log,
    )


def _state(process: ProcessState, row: Worker | None) -> str:
    """A generation worker's own status while its process runs; LOADING until its first one."""
    if process.model is None or process.state != "running":
        return process.state
    return WorkerStatus.LOADING if row is None else row.status


def _foreign(worker: Worker) -> ProcessView:
    return ProcessView(
        role="generation worker",
        name=worker.id,
        pid=worker.pid,
        state=worker.status,
        since=worker.started_at,
        running=worker.running,
        engine=worker.engine,
        model=worker.model,
        host=worker.host,
    )
