"""Response models of batches for the OpenAPI schema. Answers are built by `api/batches`, not by these classes."""

from typing import Literal

from pydantic import BaseModel, Field

from api.interface.answer_models import Page, ResponseUsage

_LineStatus = Literal["queued", "in_progress", "completed", "failed", "expired", "cancelled"]


class BatchErrorObject(BaseModel):
    """Why a batch failed: a fault of one line, or of the whole file."""

    code: str
    message: str
    param: str | None
    line: int | None


class BatchErrorList(BaseModel):
    """The faults of a batch, up to a bound."""

    object: Literal["list"]
    data: list[BatchErrorObject]


class RequestCounts(BaseModel):
    """Requests of a batch."""

    total: int
    completed: int
    failed: int = Field(description="those that expired or were cancelled included")


class BatchObject(BaseModel):
    """A batch."""

    id: str
    object: Literal["batch"]
    endpoint: str
    model: str | None = Field(description="where all requests have the same")
    errors: BatchErrorList | None
    input_file_id: str
    completion_window: str
    status: Literal[
        "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"
    ]
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    usage: ResponseUsage | None
    metadata: dict[str, str] | None
    priority: int
    retry_of: str | None


class BatchList(Page):
    """A page of batches."""

    data: list[BatchObject]


class BatchRequestObject(BaseModel):
    """A request of a batch."""

    id: str
    object: Literal["batch.request"]
    custom_id: str
    line: int
    status: _LineStatus
    job_id: str | None
    status_code: int | None


class BatchRequestList(Page):
    """A page of requests of a batch."""

    data: list[BatchRequestObject]
