"""New batches: what a create or retry call becomes, in the transaction that writes it."""

from datetime import datetime, timedelta

from sqlalchemy import Connection

from api.authentication.caller import Caller
from api.protocol.batches.request import NewBatch, window_s
from storage.batches import batch_lines, batch_rows
from storage.batches.batch_states import BatchStatus
from storage.batches.tables import Batch
from storage.contract import BACKGROUND_PRIORITY
from storage.errors import BatchConflict, InvalidRequest, NothingToRetry
from storage.files import stored_files
from storage.files.tables import FilePurpose


def insert_batch(
    c: Connection, batch_id: str, caller: Caller, wanted: NewBatch, input_file_id: str, now: datetime
) -> Batch:
    """The batch, which is to be validated; FileNotFound, and InvalidRequest for a file of another purpose."""
    held = stored_files.hold(c, input_file_id, caller.project, batch_id, now, param="input_file_id")
    if held.purpose is not FilePurpose.BATCH:
        raise InvalidRequest(
            f"The file '{input_file_id}' has the purpose '{held.purpose}', not 'batch'.", param="input_file_id"
        )
    expiry = wanted.output_expires_after
    batch = Batch(
        id=batch_id,
        owner=caller.project,
        key_id=caller.key_id,
        endpoint=wanted.endpoint,
        status=BatchStatus.VALIDATING,
        completion_window=wanted.completion_window,
        priority=BACKGROUND_PRIORITY if wanted.priority is None else wanted.priority,
        input_file_id=input_file_id,
        input_bytes=held.size_bytes,
        metadata_=wanted.metadata,
        models=[],
        cursor_offset=0,
        output_expires_after_s=None if expiry is None else expiry.seconds,
        created_at=now,
        expires_at=now + timedelta(seconds=window_s(wanted.completion_window)),
    )
    return batch_rows.create(c, batch)


def insert_retry(
    c: Connection, batch_id: str, caller: Caller, source_id: str, window: str | None, now: datetime
) -> Batch:
    """A batch of the lines of an ended one that had no success.

    Raises BatchNotFound, BatchConflict, NothingToRetry, and FileNotFound where the input file is gone.
    """
    source = batch_rows.get(c, source_id, caller.project)
    if not source.status.is_terminal:
        raise BatchConflict(f"This batch is '{source.status}'. It can be retried when it has ended.")
    counts = batch_rows.count_lines(c, [source_id])[source_id]
    if not any(counts.get(status) for status in batch_lines.WITHOUT_SUCCESS):
        raise NothingToRetry("No request of this batch failed, expired or was cancelled.")
    held = stored_files.hold(c, source.input_file_id, caller.project, batch_id, now)
    window = window or source.completion_window
    batch = Batch(
        id=batch_id,
        owner=caller.project,
        key_id=caller.key_id,
        endpoint=source.endpoint,
        status=BatchStatus.VALIDATING,
        completion_window=window,
        priority=source.priority,
        input_file_id=source.input_file_id,
        input_bytes=held.size_bytes,
        retry_of=source_id,
        metadata_=source.metadata_,
        models=[],
        cursor_offset=0,
        output_expires_after_s=source.output_expires_after_s,
        created_at=now,
        expires_at=now + timedelta(seconds=window_s(window)),
    )
    return batch_rows.create(c, batch)
