"""What the ends of jobs write into the lines of batches, in the transactions of those ends."""

from collections.abc import Collection, Mapping

from sqlalchemy import Connection, select, update

from storage.batches.batch_states import BatchStatus, LineStatus
from storage.batches.tables import Batch, BatchLine
from storage.contract import Failure, JobStatus
from storage.database.table_definitions import table_of

EXPIRED: dict[str, object] = {
    "code": "batch_expired",
    "message": "This request could not be executed before the completion window expired.",
}
CANCELLED: dict[str, object] = {
    "code": "batch_cancelled",
    "message": "The batch was cancelled before this request was executed.",
}
CANCELLED_ALONE = {"code": "batch_request_cancelled", "message": "This request was cancelled by itself."}
ERASED = {"code": "batch_request_cancelled", "message": "The job of this request was deleted."}
_TERMINAL = [status for status in BatchStatus if status.is_terminal]
_SERVER_ERROR = "server_error"
# As `storage.jobs.deadlines` names it.
_EXPIRED_CODE = "expired"

_batch = table_of(Batch)
_line = table_of(BatchLine)


def note_ended(c: Connection, batch_by_job: Mapping[str, str], status: JobStatus, failure: Failure | None) -> None:
    """Note in their lines that these jobs ended so. Call it in the transaction that ends them."""
    if status is not JobStatus.CANCELLED:
        _end(c, batch_by_job, _values_of(status, failure))
        return
    query = select(_batch.c.id).where(
        _batch.c.id.in_(set(batch_by_job.values())), _batch.c.status == BatchStatus.CANCELLING
    )
    cancelling = set(c.execute(query).scalars())
    together = [job_id for job_id, batch_id in batch_by_job.items() if batch_id in cancelling]
    alone = [job_id for job_id, batch_id in batch_by_job.items() if batch_id not in cancelling]
    for job_ids, error in ((together, CANCELLED), (alone, CANCELLED_ALONE)):
        _end(c, job_ids, {"status": LineStatus.CANCELLED, "error": error})


def note_erased(c: Connection, batch_by_job: Mapping[str, str]) -> None:
    """Note that these jobs were erased; those of an ended batch have their results in its files."""
    query = select(_batch.c.id).where(_batch.c.id.in_(set(batch_by_job.values())), _batch.c.status.not_in(_TERMINAL))
    open_ids = set(c.execute(query).scalars())
    # By their jobs alone: given their batches too, SQLite reads all lines of those.
    job_ids = [job_id for job_id, batch_id in batch_by_job.items() if batch_id in open_ids]
    values = {"status": LineStatus.CANCELLED, "status_code": None, "error": ERASED}
    if job_ids:
        c.execute(update(_line).where(_line.c.job_id.in_(job_ids)).values(values))


def _values_of(status: JobStatus, failure: Failure | None) -> dict[str, object]:
    if status is not JobStatus.FAILED:
        return {"status": LineStatus.COMPLETED, "status_code": 200}
    if failure is not None and failure.code == _EXPIRED_CODE:
        return {"status": LineStatus.EXPIRED, "error": EXPIRED}
    message = "The job failed." if failure is None else failure.message
    return {"status": LineStatus.FAILED, "error": {"code": _SERVER_ERROR, "message": message}}


def _end(c: Connection, job_ids: Collection[str], values: dict[str, object]) -> None:
    if job_ids:
        is_ended = _line.c.job_id.in_(list(job_ids)) & (_line.c.status == LineStatus.IN_PROGRESS)
        c.execute(update(_line).where(is_ended).values(values))
