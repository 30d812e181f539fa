"""All queries about batches. Every change of status is one conditional UPDATE."""

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import Connection, delete, func, insert, literal_column, select, update
from sqlalchemy.sql.elements import ColumnElement

from storage.accounts import idempotency
from storage.batches.batch_states import BatchStatus, LineStatus
from storage.batches.tables import Batch, BatchLine
from storage.database.table_definitions import table_of
from storage.errors import BatchConflict, BatchNotFound, InvalidRequest
from storage.files import stored_files
from storage.ids import is_public_id
from storage.webhooks import events

# Of one owner, that have not ended.
MAX_OPEN_BATCHES = 100
_FINAL_AT = {
    BatchStatus.COMPLETED: "completed_at",
    BatchStatus.FAILED: "failed_at",
    BatchStatus.EXPIRED: "expired_at",
    BatchStatus.CANCELLED: "cancelled_at",
}

_batch = table_of(Batch)
_line = table_of(BatchLine)
_IS_OPEN: ColumnElement[bool] = literal_column("erase_at IS NULL")

# Labelled by key: the column "metadata" is `metadata_`.
_ROW = [column.label(column.key) for column in _batch.c]

Counts = Mapping[LineStatus, int]


def create(c: Connection, batch: Batch) -> Batch:
    """Insert a batch that is to be validated; InvalidRequest where its owner has too many that have not ended."""
    owned = select(func.count()).select_from(_batch).where(_IS_OPEN, _batch.c.owner == batch.owner)
    if c.execute(owned).scalar_one() >= MAX_OPEN_BATCHES:
        raise InvalidRequest(f"You have {MAX_OPEN_BATCHES} batches that have not ended, which is the limit.")
    c.execute(insert(_batch).values(**batch.model_dump()))
    return batch


def get(c: Connection, batch_id: str, owner: str) -> Batch:
    """The owner's batch; BatchNotFound when absent or another owner's."""
    batch = find(c, batch_id) if is_public_id(batch_id) else None
    if batch is None or batch.owner != owner:
        raise BatchNotFound(f"No batch with id '{batch_id}'.")
    return batch


def find(c: Connection, batch_id: str) -> Batch | None:
    """The batch, whoever owns it."""
    row = c.execute(select(*_ROW).where(_batch.c.id == batch_id)).first()
    return None if row is None else Batch(**row._mapping)


def list_batches(c: Connection, owner: str, *, after: str | None, limit: int) -> list[Batch]:
    """The owner's batches, the newest first.

    after: the id of the last batch of the page before
    """
    query = select(*_ROW).where(_batch.c.owner == owner).order_by(_batch.c.id.desc()).limit(limit)
    if after is not None:
        if not is_public_id(after):
            return []
        query = query.where(_batch.c.id < after)
    return [Batch(**row._mapping) for row in c.execute(query)]


def list_open(c: Connection, limit: int) -> list[Batch]:
    """The batches for which something is left to do: of lower priority numbers first, then the oldest."""
    query = select(*_ROW).where(_IS_OPEN).order_by(_batch.c.priority, _batch.c.id).limit(limit)
    return [Batch(**row._mapping) for row in c.execute(query)]


def count_lines(c: Connection, batch_ids: list[str]) -> dict[str, Counts]:
    """Lines of these batches by status; an index answers it."""
    query = select(_line.c.batch_id, _line.c.status, func.count().label("num")).where(_line.c.batch_id.in_(batch_ids))
    counts: dict[str, dict[LineStatus, int]] = {batch_id: {} for batch_id in batch_ids}
    for row in c.execute(query.group_by(_line.c.batch_id, _line.c.status)) if batch_ids else ():
        counts[row.batch_id][row.status] = row.num
    return dict(counts)


def note_validated(c: Connection, batch: Batch, **values: object) -> bool:
    """Whether the results of a part of validation are stored; False where another process was faster.

    batch:  as it was when that part began
    values: new values of its columns
    """
    is_there = (_batch.c.cursor_offset == batch.cursor_offset) & (_batch.c.cursor_line == batch.cursor_line)
    statement = update(_batch).where(_batch.c.id == batch.id, _batch.c.status == BatchStatus.VALIDATING, is_there)
    return c.execute(statement.values(values)).rowcount == 1


def begin(c: Connection, batch: Batch, now: datetime) -> bool:
    """Whether the validated batch is in progress from now on."""
    statement = update(_batch).where(_batch.c.id == batch.id, _batch.c.status == BatchStatus.VALIDATING)
    return c.execute(statement.values(status=BatchStatus.IN_PROGRESS, in_progress_at=now)).rowcount == 1


def finalize(c: Connection, batch: Batch, now: datetime) -> bool:
    """Whether all lines of the batch in progress have ended, and its results are to be written from now on."""
    statement = update(_batch).where(_batch.c.id == batch.id, _batch.c.status == BatchStatus.IN_PROGRESS)
    return c.execute(statement.values(status=BatchStatus.FINALIZING, finalizing_at=now)).rowcount == 1


def cancel(c: Connection, batch_id: str, owner: str, now: datetime) -> Batch:
    """The owner's batch, which is being cancelled; a second time changes nothing.

    BatchNotFound as `get`, and BatchConflict for one whose lines have all ended.
    """
    batch = get(c, batch_id, owner)
    sources = (BatchStatus.VALIDATING, BatchStatus.IN_PROGRESS)
    statement = update(_batch).where(_batch.c.id == batch_id, _batch.c.status.in_(sources))
    is_new = c.execute(statement.values(status=BatchStatus.CANCELLING, cancelling_at=now)).rowcount == 1
    if not is_new and batch.status not in (BatchStatus.CANCELLING, BatchStatus.CANCELLED):
        raise BatchConflict(f"This batch is '{batch.status}' and cannot be cancelled any more.")
    return get(c, batch_id, owner)


def lock_in_progress(c: Connection, batch_id: str) -> bool:
    """Whether the batch is in progress, and stays so until the transaction ends."""
    query = select(_batch.c.status).where(_batch.c.id == batch_id).with_for_update()
    return c.execute(query).scalar() == BatchStatus.IN_PROGRESS


def end(c: Connection, batch: Batch, status: BatchStatus, now: datetime, **values: object) -> bool:
    """Whether the batch has now ended so; its webhook event is inserted with it, and its input file is free.

    batch:  as it was; False where its status is another by now
    values: further columns
    """
    statement = update(_batch).where(_batch.c.id == batch.id, _IS_OPEN, _batch.c.status == batch.status)
    if c.execute(statement.values({"status": status, _FINAL_AT[status]: now, **values})).rowcount != 1:
        return False
    stored_files.release(c, batch.id)
    events.emit_of_batch(c, batch.id, batch.owner, f"batch.{status}", now)
    return True


def close(c: Connection, batch_id: str, erase_at: datetime) -> None:
    """Note that nothing is left to do for an ended batch."""
    c.execute(update(_batch).where(_batch.c.id == batch_id).values(erase_at=erase_at))


def list_erasable(c: Connection, now: datetime, limit: int) -> list[str]:
    """Ids of ended batches whose time is over."""
    query = select(_batch.c.id).where(_batch.c.erase_at.is_not(None), _batch.c.erase_at <= now)
    return list(c.execute(query.order_by(_batch.c.erase_at).limit(limit)).scalars())


def erase(c: Connection, batch_id: str) -> None:
    """Erase the row of a batch and its idempotency key, after its lines."""
    idempotency.forget(c, [batch_id])
    c.execute(delete(_batch).where(_batch.c.id == batch_id))
