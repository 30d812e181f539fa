"""Batches as JSON. Source of the shapes: openai SDK 3.57.0; some fields are ours."""

from datetime import datetime

from api.protocol.batches.result_lines import request_id_of
from storage.batches.batch_rows import Counts
from storage.batches.batch_states import LineStatus
from storage.batches.tables import Batch, BatchLine

_TIMES = ("in_progress", "expires", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")


def batch_object(batch: Batch, counts: Counts) -> dict[str, object]:
    """A batch.

    counts: its lines by status, which an ended batch does not need
    """
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "model": batch.models[0] if len(batch.models) == 1 else None,
        "errors": None if batch.errors is None else {"object": "list", "data": batch.errors},
        "input_file_id": batch.input_file_id,
        "completion_window": batch.completion_window,
        "status": batch.status.value,
        "output_file_id": batch.output_file_id,
        "error_file_id": batch.error_file_id,
        "created_at": _unix(batch.created_at),
        **{f"{name}_at": _unix(getattr(batch, f"{name}_at")) for name in _TIMES},
        "request_counts": _counts_object(batch, counts),
        "usage": None if batch.usage is None else _usage_object(batch.usage),
        "metadata": batch.metadata_,
        "priority": batch.priority,
        "retry_of": batch.retry_of,
    }


def _counts_object(batch: Batch, counts: Counts) -> dict[str, int]:
    """Lines that were cancelled or expired count as failed, so that the two add up to the total at the end."""
    if batch.in_progress_at is None:
        return {"total": 0, "completed": 0, "failed": 0}
    if batch.num_completed is not None:
        failed = batch.num_lines - batch.num_completed
        return {"total": batch.num_lines, "completed": batch.num_completed, "failed": failed}
    failed = sum(counts.get(status, 0) for status in (LineStatus.FAILED, LineStatus.EXPIRED, LineStatus.CANCELLED))
    return {"total": batch.num_lines, "completed": counts.get(LineStatus.COMPLETED, 0), "failed": failed}


def _usage_object(usage: dict[str, int]) -> dict[str, object]:
    return {
        "input_tokens": usage["input_tokens"],
        "input_tokens_details": {"cached_tokens": usage["cached_tokens"], "cache_write_tokens": 0},
        "output_tokens": usage["output_tokens"],
        "output_tokens_details": {"reasoning_tokens": usage["reasoning_tokens"]},
        "total_tokens": usage["input_tokens"] + usage["output_tokens"],
    }


def request_object(line: BatchLine) -> dict[str, object]:
    """A request of a batch."""
    return {
        "id": request_id_of(line.batch_id, line.line),
        "object": "batch.request",
        "custom_id": line.custom_id,
        "line": line.line,
        "status": line.status.value,
        "job_id": line.job_id,
        "status_code": line.status_code,
    }


def _unix(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp())
