"""`tokenpost ps`: which processes the platform consists of, and what they do."""

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from api.cli.home import is_locked
from api.cli.settings import Place
from api.cli.state import PlatformState, ProcessState, read_state
from storage.contract import WorkerStatus
from storage.tables import Worker


class ProcessView(msgspec.Struct, frozen=True, kw_only=True):
    """One process of the platform.

    state:   the supervisor's word, or a generation worker's own (loading, ready, draining)
    running: jobs that a generation worker runs; None for other roles
    host:    None for this machine
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


def find_running(place: Place) -> PlatformState | None:
    """The state of the supervisor on this home; None when none runs."""
    return read_state(place.home) if is_locked(place.home) else None


def list_processes(state: PlatformState | None, workers: Sequence[Worker], alive: set[str]) -> list[ProcessView]:
    """The supervisor's processes first, then the live generation workers that somebody else started.

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
        model=process.model,
        restarts=process.restarts,
        log=process.log,
    )


def _state(process: ProcessState, row: Worker | None) -> str:
    """A generation worker's own word while its process runs; until its first one it is loading."""
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
        model=worker.model,
        host=worker.host,
    )
