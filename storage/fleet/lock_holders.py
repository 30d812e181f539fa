"""Named locks held by workers. A beat shows that the holder is alive; others judge it by their monotonic clocks."""

import msgspec
from sqlalchemy import Connection, delete, select, update

from storage.database.table_definitions import table_of
from storage.fleet.manifests import upsert
from storage.fleet.tables import Holder

# The CPU worker's lock.
SWEEPER = "sweeper"

_holder = table_of(Holder)


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """The holder of a lock and its beat counter."""

    worker_id: str
    beat: int


def find(c: Connection, name: str) -> Hold | None:
    """The holder of the lock; None when it was never taken."""
    row = c.execute(select(_holder.c.worker_id, _holder.c.beat).where(_holder.c.name == name)).first()
    return None if row is None else Hold(worker_id=row.worker_id, beat=row.beat)


def renew(c: Connection, name: str, worker_id: str) -> bool:
    """Whether this worker still holds the lock; its beat is then incremented."""
    statement = update(_holder).where(_holder.c.name == name, _holder.c.worker_id == worker_id)
    return c.execute(statement.values(beat=_holder.c.beat + 1)).rowcount == 1


def take(c: Connection, name: str, worker_id: str, seen: Hold | None) -> bool:
    """Whether this worker now holds the lock; False when another was faster or the holder is alive.

    seen: the hold whose beat did not move for a lease, or None where the lock was free
    """
    if seen is None:
        statement = upsert(c, _holder).values(name=name, worker_id=worker_id, beat=1)
        inserting = statement.on_conflict_do_nothing(index_elements=["name"]).returning(_holder.c.name)
        return c.execute(inserting).first() is not None
    taking = update(_holder).where(
        _holder.c.name == name, _holder.c.worker_id == seen.worker_id, _holder.c.beat == seen.beat
    )
    return c.execute(taking.values(worker_id=worker_id, beat=seen.beat + 1)).rowcount == 1


def release(c: Connection, worker_id: str) -> None:
    """Free every lock of a worker that has ended or is about to."""
    c.execute(delete(_holder).where(_holder.c.worker_id == worker_id))
