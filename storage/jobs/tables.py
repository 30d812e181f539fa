"""The table of jobs: the row is the truth about a job."""

from datetime import datetime

from sqlalchemy import Column, Index, Integer, LargeBinary
from sqlalchemy.types import JSON
from sqlmodel import Field, SQLModel

from storage.contract import JobKind, JobStatus, PriorityQueue
from storage.database.columns import DatabaseNow, EnumText, UtcDateTime
from storage.database.table_definitions import partial_index


class Job(SQLModel, table=True):
    """What a caller asked for, from creation to outcome.

    model:         name of the model, also when no worker serves it any more
    attempt:       runs claimed so far; the fencing token of the running one
    worker_id:     who runs or ran it; None while queued
    request:       the accepted wire request, as JSON values
    context:       what the protocol computed at submission, as JSON values
    spec, result:  msgpack of JobSpec and Result
    failure:       JSON values of Failure
    lost_attempts: attempts whose worker died
    priority_queue: which of its model's queues its tickets go to
    body_digest:   of owner, path and body of the request, by which a client's retry finds it; 16 bytes
    num_attached:  callers that joined it after the one who made it
    expires_at:    when it fails unless it has ended
    cancel_at:     when it is cancelled unless it has ended
    webhook:       its own target of webhook events, as JSON values, with its secret
    retention_s:   seconds after `ended_at` at which the row is erased
    started_at:    when the newest attempt was claimed
    sent_at:       when its newest ticket was handed to the queue, by the database's clock
    """

    __tablename__ = "job"

    id: str = Field(primary_key=True)
    owner: str
    kind: JobKind = Field(sa_column=Column(EnumText(JobKind), nullable=False))
    model: str
    status: JobStatus = Field(sa_column=Column(EnumText(JobStatus), nullable=False))
    attempt: int = 0
    worker_id: str | None = None
    background: bool
    store: bool
    request: dict[str, object] = Field(sa_column=Column(JSON, nullable=False))
    context: dict[str, object] = Field(sa_column=Column(JSON, nullable=False))
    metadata_: dict[str, str] = Field(sa_column=Column("metadata", JSON, key="metadata_", nullable=False))
    spec: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    result: bytes | None = Field(default=None, sa_column=Column(LargeBinary))
    failure: dict[str, str] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True)))
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    lost_attempts: int = 0
    retention_s: int
    created_at: datetime = Field(sa_column=Column(UtcDateTime, nullable=False))
    started_at: datetime | None = Field(default=None, sa_column=Column(UtcDateTime))
    ended_at: datetime | None = Field(default=None, sa_column=Column(UtcDateTime))
    sent_at: datetime = Field(sa_column=Column(UtcDateTime, nullable=False, default=DatabaseNow()))
    erase_at: datetime | None = Field(default=None, sa_column=Column(UtcDateTime))
    priority_queue: PriorityQueue = Field(
        default=PriorityQueue.FRONT,
        sa_column=Column(EnumText(PriorityQueue), nullable=False, server_default=PriorityQueue.FRONT),
    )
    body_digest: bytes | None = Field(default=None, sa_column=Column(LargeBinary))
    num_attached: int = Field(default=0, sa_column=Column(Integer, nullable=False, server_default="0"))
    expires_at: datetime | None = Field(default=None, sa_column=Column(UtcDateTime))
    cancel_at: datetime | None = Field(default=None, sa_column=Column(UtcDateTime))
    webhook: dict[str, object] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True)))

    # Partial indexes hold few rows: a finished job, as most are, lies in none of the first two.
    __table_args__ = (
        # The last two only so that counts of queued jobs never look at the rows.
        partial_index("ix_job_queued", "status = 'queued'", "model", "priority_queue", "sent_at", "owner", "id"),
        partial_index("ix_job_running", "status = 'in_progress'", "worker_id"),
        partial_index("ix_job_stored_chat", "kind = 'chat' AND store", "owner", "id"),
        partial_index("ix_job_erase_at", "erase_at IS NOT NULL", "erase_at"),
        partial_index("ix_job_expires_at", "expires_at IS NOT NULL AND ended_at IS NULL", "expires_at"),
        partial_index("ix_job_cancel_at", "cancel_at IS NOT NULL AND ended_at IS NULL", "cancel_at"),
        partial_index("ix_job_ended_at", "ended_at IS NOT NULL AND result IS NULL", "ended_at"),
        partial_index("ix_job_body_digest", "body_digest IS NOT NULL", "body_digest"),
        Index("ix_job_created_at", "created_at"),
    )
