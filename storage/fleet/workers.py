"""All queries about generation workers and their liveness."""

from datetime import datetime

import msgspec
from sqlalchemy import Connection, and_, delete, literal, select, update

from storage.contract import WorkerStatus
from storage.database.columns import DatabaseNow, SecondsAfter
from storage.database.table_definitions import table_of
from storage.fleet.manifests import is_alive, upsert
from storage.fleet.tables import Worker

_worker = table_of(Worker)
# Of the reason why a model cannot be loaded. Longer ones are texts of libraries, whose beginning says enough.
MAX_FAILURE_CHARACTERS = 500
# An older failure of a model that nobody ever served is not shown: it was an attempt of another day.
RECENT_FAILURE_S = 3600.0


class NewWorker(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker registers when it starts."""

    worker_id: str
    model: str
    pid: int
    host: str
    device: str
    dtype: str
    slots: int


class LoadFailure(msgspec.Struct, frozen=True, kw_only=True):
    """Why a model could not be loaded.

    reason:    one line for people; it may name folders of the worker's machine
    is_recent: whether that was within `RECENT_FAILURE_S`
    """

    reason: str
    is_recent: bool


def register(c: Connection, new: NewWorker, now: datetime) -> None:
    """Register the worker as LOADING; one with the same id is replaced."""
    values = {key: value for key, value in msgspec.structs.asdict(new).items() if key != "worker_id"}
    values |= {"status": WorkerStatus.LOADING, "running": 0, "engine": None, "failure": None}
    values |= {"started_at": now, "updated_at": DatabaseNow()}
    # A new attempt to load the model replaces the failure of an earlier one.
    c.execute(delete(_worker).where(_worker.c.model == new.model, _worker.c.failure.is_not(None)))
    statement = upsert(c, _worker).values(id=new.worker_id, beat=0, **values)
    c.execute(statement.on_conflict_do_update(index_elements=["id"], set_=values | {"beat": _worker.c.beat + 1}))


def beat(c: Connection, worker_id: str, running: int, engine: dict[str, int] | None = None) -> bool:
    """Whether the worker still counts as alive; False when it was marked dead or forgotten, and must register again.

    engine: its engine's gauges and counters by name; None while there is none
    """
    statement = update(_worker).where(_worker.c.id == worker_id, _worker.c.status != WorkerStatus.DEAD)
    values = {"beat": _worker.c.beat + 1, "running": running, "updated_at": DatabaseNow(), "engine": engine}
    return c.execute(statement.values(values)).rowcount == 1


def set_status(c: Connection, worker_id: str, status: WorkerStatus) -> bool:
    """Whether the status was set; False as `beat`."""
    statement = update(_worker).where(_worker.c.id == worker_id, _worker.c.status != WorkerStatus.DEAD)
    return c.execute(statement.values(status=status, beat=_worker.c.beat + 1, updated_at=DatabaseNow())).rowcount == 1


def mark_dead(c: Connection, worker_id: str) -> bool:
    """Whether the worker was alive until now, by its row."""
    statement = update(_worker).where(_worker.c.id == worker_id, _worker.c.status != WorkerStatus.DEAD)
    return c.execute(statement.values(status=WorkerStatus.DEAD, running=0)).rowcount == 1


def put_failure(c: Connection, new: NewWorker, failure: str, now: datetime) -> None:
    """Store that the worker ended because its model can never be loaded; the worker may not have registered before.

    failure: the reason, for people; stored as one line of at most `MAX_FAILURE_CHARACTERS`
    """
    register(c, new, now)
    values = {"status": WorkerStatus.DEAD, "failure": _one_line(failure)}
    c.execute(update(_worker).where(_worker.c.id == new.worker_id).values(values))


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MAX_FAILURE_CHARACTERS else line[: MAX_FAILURE_CHARACTERS - 3] + "..."


def list_failures(c: Connection) -> dict[str, LoadFailure]:
    """Models that could not be loaded at their last attempt; the newest failure where several workers failed."""
    is_recent = SecondsAfter(_worker.c.updated_at, literal(RECENT_FAILURE_S)) > DatabaseNow()
    query = select(_worker.c.model, _worker.c.failure, is_recent.label("is_recent"))
    rows = c.execute(query.where(_worker.c.failure.is_not(None)).order_by(_worker.c.updated_at))
    return {row.model: LoadFailure(reason=row.failure, is_recent=bool(row.is_recent)) for row in rows}


def find(c: Connection, worker_id: str) -> Worker | None:
    """The worker's row."""
    row = c.execute(select(_worker).where(_worker.c.id == worker_id)).first()
    return None if row is None else Worker(**row._mapping)


def list_workers(c: Connection, *, model: str | None = None) -> list[Worker]:
    """All workers, the oldest first; dead ones too until they are deleted."""
    query = select(_worker).order_by(_worker.c.started_at, _worker.c.id)
    if model is not None:
        query = query.where(_worker.c.model == model)
    return [Worker(**row._mapping) for row in c.execute(query)]


def list_alive(c: Connection, lease_s: float) -> list[Worker]:
    """The workers that are not dead and beat within the lease."""
    query = select(_worker).where(is_alive(lease_s)).order_by(_worker.c.started_at, _worker.c.id)
    return [Worker(**row._mapping) for row in c.execute(query)]


def forget_dead(c: Connection, before: datetime) -> int:
    """How many dead workers without a beat since `before` were deleted."""
    is_forgettable = and_(_worker.c.status == WorkerStatus.DEAD, _worker.c.failure.is_(None))
    statement = delete(_worker).where(is_forgettable, _worker.c.updated_at < before)
    return c.execute(statement).rowcount
